//! What the client reports, as this crate's errors: what was tried, what is wrong, what to do.
//!
//! Knows the codes with which DynamoDB refuses. What the server answered never gets into a message in full, nor into
//! its cause: it may repeat values, and it repeats headers if it doubts a signature.

use std::error::Error as StdError;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::options::DynamoDbOptions;
use crate::error::{Error, ErrorKind};

/// Which table, and where, for messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) table: String,
    /// The region as the client has it.
    pub(super) region: String,
}

impl Place {
    pub(super) fn new(options: &DynamoDbOptions, region: &str) -> Self {
        Self { table: options.table.clone(), region: region.to_owned() }
    }

    /// The error of a call.
    pub(super) fn failed<E>(&self, what: &str, cause: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let error = |kind, words: &str| Error::new(kind, format!("dynamodb {what}: {words}"));
        match cause {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let (code, message) = (answer.err().code(), answer.err().message());
                self.refused(what, code.unwrap_or_default(), message.unwrap_or_default(), status)
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                error(ErrorKind::Timeout, "no answer in time")
            }
            SdkError::DispatchFailure(failure) => {
                let (is_io, is_user) = (failure.is_io(), failure.is_user());
                let chain = failure.as_connector_error().map(|cause| chain_of(cause)).unwrap_or_default();
                if chain.contains("credentials") || chain.contains("identity") {
                    return error(ErrorKind::Config, NO_CREDENTIALS);
                }
                if is_user {
                    return error(ErrorKind::Config, "the endpoint is no address that can be connected to");
                }
                let words = if chain.contains("certificate") {
                    return error(
                        ErrorKind::Config,
                        "the endpoint's certificate is not one that the system trusts",
                    );
                } else if chain.contains("connection refused") {
                    "nobody listens at the endpoint"
                } else if chain.contains("dns") || chain.contains("lookup") {
                    "the endpoint's name cannot be resolved"
                } else if is_io {
                    "the connection failed"
                } else {
                    "the request could not be sent"
                };
                error(ErrorKind::Unavailable, words)
            }
            SdkError::TimeoutError(_) => error(ErrorKind::Timeout, "no answer in time"),
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                if chain_of_source(&SdkError::<E, _>::ResponseError(answer)).contains("credentials") {
                    return error(ErrorKind::Config, NO_CREDENTIALS);
                }
                let words = format!("the answer broke off, or is none of DynamoDB's (status {status})");
                error(ErrorKind::Unavailable, &words)
            }
            other => {
                let chain = chain_of_source(&other);
                if chain.contains("credentials") || chain.contains("identity") {
                    return error(ErrorKind::Config, NO_CREDENTIALS);
                }
                if chain.contains("stalled") || chain.contains("throughput") {
                    return error(ErrorKind::Timeout, "the answer came to a standstill");
                }
                error(ErrorKind::Config, "the client refuses its settings")
            }
        }
    }

    /// What a refusal of the server means.
    pub(super) fn refused(&self, what: &str, code: &str, message: &str, status: u16) -> Error {
        // Some write it as `com.amazonaws.dynamodb.v20120810#ThrottlingException`.
        let code = code.rsplit('#').next().unwrap_or(code);
        let said: String = message.chars().take(200).collect();
        let Self { table, region } = self;
        let error = |kind, words: String| Error::new(kind, format!("dynamodb {what}: {words}"));
        match code {
            "ResourceNotFoundException" => error(
                ErrorKind::Config,
                format!(
                    "there is no table \"{table}\" in {region}: create it with a partition key \"key\" of type \
                     string, or let create_table: true do it"
                ),
            ),
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "TooManyRequestsException"
            | "ReplicatedWriteConflictException"
            | "TransactionConflictException" => {
                error(ErrorKind::Unavailable, format!("the table \"{table}\" is throttled ({code})"))
            }
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "IncompleteSignatureException"
            | "IncompleteSignature"
            | "MissingAuthenticationTokenException"
            | "MissingAuthenticationToken"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "OptInRequired" => {
                error(ErrorKind::Config, format!("the server does not accept the credentials ({code})"))
            }
            "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => error(
                ErrorKind::Config,
                format!(
                    "the credentials may not do that to the table \"{table}\"; they need GetItem, BatchGetItem, \
                     PutItem, DeleteItem and Scan, with create_table also CreateTable, DescribeTable and \
                     UpdateTimeToLive"
                ),
            ),
            "ValidationException" if message.contains("does not match the schema") => error(
                ErrorKind::Config,
                format!(
                    "the table \"{table}\" needs a partition key \"key\" of type string, and no sort key"
                ),
            ),
            "ValidationException" if message.to_ascii_lowercase().contains("item size") => {
                error(ErrorKind::TooLarge, "the item is larger than 400 KiB".to_owned())
            }
            "RequestEntityTooLarge" | "RequestEntityTooLargeException" => {
                error(ErrorKind::TooLarge, "the request is larger than the server takes".to_owned())
            }
            "ValidationException" => error(ErrorKind::Unsupported, format!("{code}: {said}")),
            _ if status >= 500 || status == 429 => error(
                ErrorKind::Unavailable,
                format!("the server cannot do it now (status {status}{}{code})", comma(code)),
            ),
            _ => error(
                ErrorKind::Unsupported,
                format!("the server refused (status {status}{}{code})", comma(code)),
            ),
        }
    }
}

const NO_CREDENTIALS: &str = "no credentials could be had: set access_key_id and secret_access_key, or \
     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile";

fn comma(code: &str) -> &'static str {
    if code.is_empty() { "" } else { ", " }
}

/// An error with its causes in lower case, to be looked at and never to be shown.
fn chain_of(error: &(dyn StdError + 'static)) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    chain.to_ascii_lowercase()
}

fn chain_of_source(error: &dyn StdError) -> String {
    error.source().map(chain_of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_what_can_be_done_about_them() {
        use ErrorKind::{Config, TooLarge, Unavailable, Unsupported};
        let place = Place { table: "cache".to_owned(), region: "eu-west-1".to_owned() };
        for (code, message, status, kind, advice) in [
            ("ResourceNotFoundException", "", 400, Config, "no table \"cache\" in eu-west-1"),
            ("ProvisionedThroughputExceededException", "", 400, Unavailable, "throttled"),
            ("com.amazon.coral.availability#ThrottlingException", "", 400, Unavailable, "throttled"),
            ("RequestLimitExceeded", "", 400, Unavailable, "throttled"),
            ("InternalServerError", "", 500, Unavailable, "cannot do it now"),
            ("", "", 503, Unavailable, "cannot do it now (status 503)"),
            ("UnrecognizedClientException", "", 400, Config, "does not accept the credentials"),
            ("InvalidSignatureException", "hunter2", 400, Config, "does not accept the credentials"),
            ("ExpiredTokenException", "", 400, Config, "does not accept the credentials"),
            ("AccessDeniedException", "", 400, Config, "BatchGetItem"),
            (
                "ValidationException",
                "The provided key element does not match the schema",
                400,
                Config,
                "\"key\"",
            ),
            (
                "ValidationException",
                "Item size has exceeded the maximum allowed size",
                400,
                TooLarge,
                "400 KiB",
            ),
            ("ValidationException", "Invalid ConditionExpression", 400, Unsupported, "Invalid Condition"),
            ("UnknownOperationException", "", 400, Unsupported, "UnknownOperationException"),
        ] {
            let error = place.refused("set", code, message, status);
            assert_eq!(error.kind(), kind, "{code}: {error}");
            assert!(error.message().starts_with("dynamodb set: "), "{error}");
            assert!(error.message().contains(advice), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
