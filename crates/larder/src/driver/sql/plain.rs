//! What both databases do by the same code over the client, which has no bounds that would let it be written once: the
//! client's types for each database have nothing in common but their methods.

/// The statements of a dialect that differ in nothing but their text, over this kind of connection. `$stamp` makes a
/// stamp what the column holds.
macro_rules! plain_statements {
    ($connection:ty, $stamp:expr) => {
        async fn find(connection: &mut $connection, statements: &Self::Statements) -> ::sqlx::Result<()> {
            ::sqlx::query(statements.find.clone()).execute(connection).await.map(drop)
        }

        async fn create(connection: &mut $connection, statements: &Self::Statements) -> ::sqlx::Result<()> {
            let schema = ::sqlx::AssertSqlSafe(statements.schema.clone());
            ::sqlx::raw_sql(schema).execute(connection).await.map(drop)
        }

        async fn version(connection: &mut $connection) -> ::sqlx::Result<String> {
            // Both know this function; what comes back begins with a number on the one and with a name on the other.
            let said: String = ::sqlx::query_scalar("SELECT version()").fetch_one(connection).await?;
            let short = said.split(" on ").next().unwrap_or_default().split(" (").next().unwrap_or_default();
            let is_bare = short.starts_with(|first: char| first.is_ascii_digit());
            let name = if short.contains("MariaDB") { "MariaDB" } else { "MySQL" };
            Ok(if is_bare { format!("{name} {short}") } else { short.to_owned() })
        }

        async fn get(
            connection: &mut $connection,
            statements: &Self::Statements,
            key: &str,
        ) -> ::sqlx::Result<Option<Bytes>> {
            let get = ::sqlx::query(statements.get.clone()).bind(key.as_bytes());
            get.fetch_optional(connection).await?.map(|row| bytes(&row, 0)).transpose()
        }

        async fn page(
            connection: &mut $connection,
            statements: &Self::Statements,
            (from, below): Range<'_>,
            limit: i64,
        ) -> ::sqlx::Result<Page> {
            let query = ::sqlx::query(statements.page.clone()).bind(from).bind(below).bind(limit);
            let rows = query.fetch_all(connection).await?;
            let (mut page, mut last) = (Vec::with_capacity(rows.len()), None);
            for row in &rows {
                let (key, head): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
                last = Some(key.clone());
                if row.try_get(2)? {
                    page.extend($crate::driver::sql::scanned(key, head));
                }
            }
            let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= limit);
            Ok((page, $crate::driver::sql::rest_of(last.as_deref(), is_full)))
        }

        async fn clear(
            connection: &mut $connection,
            statements: &Self::Statements,
            (from, below): Range<'_>,
            until: Stamp,
            limit: i64,
        ) -> ::sqlx::Result<(u64, Option<Vec<u8>>)> {
            let boundary = ::sqlx::query(statements.boundary.clone()).bind(from).bind(below).bind(limit);
            let rest = boundary.fetch_optional(&mut *connection).await?;
            let rest: Option<Vec<u8>> = rest.map(|row| row.try_get(0)).transpose()?;
            let end = rest.as_deref().unwrap_or(below);
            let clear = ::sqlx::query(statements.clear.clone()).bind(from).bind(end).bind($stamp(until));
            Ok((clear.execute(connection).await?.rows_affected(), rest))
        }

        async fn prune(
            connection: &mut $connection,
            statements: &Self::Statements,
            limit: i64,
        ) -> ::sqlx::Result<u64> {
            let done = ::sqlx::query(statements.prune.clone()).bind(limit).execute(connection).await?;
            Ok(done.rows_affected())
        }
    };
}
pub(crate) use plain_statements;

/// What the options say in place of what the client's settings do, where both clients have the same names.
macro_rules! with_options {
    ($base:expr, $options:expr) => {{
        let options = $options;
        // With none, sqlx would prepare each call's statement at the server under a new name, and leave it there.
        let kept = options.statement_cache.max(1);
        let mut settings = $base.statement_cache_capacity(kept).disable_statement_logging();
        if let Some(host) = &options.host {
            settings = settings.host(host);
        }
        if let Some(port) = options.port {
            settings = settings.port(port);
        }
        if let Some(username) = &options.username {
            settings = settings.username(username);
        }
        if let Some(password) = &options.password {
            settings = settings.password(password);
        }
        if let Some(database) = &options.database {
            settings = settings.database(database);
        }
        if let (Some(certificate), Some(key)) = (&options.cert_file, &options.key_file) {
            settings = settings.ssl_client_cert(certificate).ssl_client_key(key);
        }
        settings
    }};
}
pub(crate) use with_options;
