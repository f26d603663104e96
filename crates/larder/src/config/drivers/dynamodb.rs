//! The DynamoDB driver's options.

use crate::config::store::StoreOptions;
use crate::driver::dynamodb::{DynamoDbCredentials, DynamoDbOptions};
use crate::error::Result;

pub(super) fn read(options: &mut StoreOptions) -> Result<DynamoDbOptions> {
    for (other, name) in [
        ("table.name", "table"),
        ("credentials.accessKeyId", "access_key_id"),
        ("credentials.secretAccessKey", "secret_access_key"),
        ("credentials.sessionToken", "session_token"),
    ] {
        options.alias(other, name)?;
    }
    let url = options.url();
    let table = options.text("table")?;
    let (region, endpoint) = (options.text("region")?, options.text("endpoint")?);
    let keys = (options.secret("access_key_id")?, options.secret("secret_access_key")?);
    let session_token = options.secret("session_token")?;
    let (consistent_reads, create_table) =
        (options.boolean("consistent_reads")?, options.boolean("create_table")?);
    let timeouts = (options.duration("connect_timeout")?, options.duration("response_timeout")?);

    // A driver's name with a colon is a URL that says nothing.
    let named = url.as_deref().and_then(|url| url.split_once(':')).map(|(_, rest)| rest);
    let named = named.map(|rest| rest.strip_prefix("//").unwrap_or(rest)).filter(|rest| !rest.is_empty());
    let table = match named {
        Some(_) if table.is_some() => {
            return Err(options.refuse("the URL and the option \"table\" both say which table"));
        }
        Some(table) => table.to_owned(),
        None => options.required("table", table)?,
    };
    let mut dynamodb = DynamoDbOptions::new(table);
    dynamodb.region = region;
    dynamodb.endpoint = endpoint;
    dynamodb.credentials = match keys {
        (Some(id), Some(secret)) => {
            let mut credentials = DynamoDbCredentials::new(id, secret);
            credentials.session_token = session_token;
            Some(credentials)
        }
        (None, None) if session_token.is_none() => None,
        _ => {
            return Err(options.refuse(
                "access_key_id and secret_access_key need each other, and session_token needs both",
            ));
        }
    };
    dynamodb.consistent_reads = consistent_reads.unwrap_or(dynamodb.consistent_reads);
    dynamodb.create_table = create_table.unwrap_or(dynamodb.create_table);
    dynamodb.connect_timeout = timeouts.0.unwrap_or(dynamodb.connect_timeout);
    dynamodb.response_timeout = timeouts.1.unwrap_or(dynamodb.response_timeout);
    dynamodb.check().map_err(|error| options.refuse(error.message()))?;
    Ok(dynamodb)
}
