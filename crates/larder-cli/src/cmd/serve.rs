//! `larder serve`: runs until it is told to stop, and reads its configuration again when it is told to.

use larder::config::Loader;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{FOUND, Failure, Outcome};
use crate::output::{escape, note, print_bytes};
use crate::proxy::Scheme;
use crate::proxy::config::{Flags, ServeConfig};
use crate::proxy::run::{Control, Proxy, check_files};
use crate::proxy::shutdown::shutdown;
use crate::store;

/// Serves, on as many threads as there are processors for this process.
pub(crate) fn serve(flags: Flags) -> Outcome {
    let config = load(&flags)?;
    if flags.check {
        return check(&config, flags.json);
    }
    let runtime = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(run(&flags, config))
}

fn load(flags: &Flags) -> Result<ServeConfig, Failure> {
    Ok(ServeConfig::load(flags.config.as_deref(), flags, &Loader::of_process())?)
}

fn check(config: &ServeConfig, json: bool) -> Outcome {
    check_files(config).map_err(|error| Failure::usage(error.to_string()))?;
    if json {
        let lines = config.shown.iter().map(|line| {
            serde_json::json!({
                "option": line.option,
                "value": line.value,
                "from": line.origin.to_string(),
            })
        });
        let lines = serde_json::Value::Array(lines.collect());
        print_bytes(format!("{lines}\n").as_bytes())?;
    } else {
        print_bytes(config.describe().as_bytes())?;
    }
    Ok(FOUND)
}

async fn run(flags: &Flags, config: ServeConfig) -> Outcome {
    let driver = store::open_for_serve(config.store.as_ref()).await?;
    let proxy = Proxy::open(&config, driver).map_err(|error| Failure::failed(error.to_string()))?;
    for (address, scheme) in proxy.addresses() {
        note(format_args!(
            "listening on {}://{address}",
            if scheme == Scheme::Https { "https" } else { "http" }
        ));
    }
    if let Some(address) = proxy.admin_address() {
        note(format_args!("admin on http://{address}"));
    }
    let control = proxy.control();
    let hear =
        |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
    let (mut hang_up, mut interrupt, mut terminate) =
        (hear(SignalKind::hangup())?, hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let (stop, stops) = shutdown();
    let mut serving = std::pin::pin!(proxy.serve(stops));
    let mut config = config;
    loop {
        tokio::select! {
            closed = &mut serving => {
                closed?;
                return Ok(FOUND);
            }
            () = heard(&mut hang_up) => config = reload(flags, config, &control),
            () = heard(&mut interrupt) => stop.stop(),
            () = heard(&mut terminate) => stop.stop(),
        }
    }
}

async fn heard(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Reads the configuration again; what cannot be used changes nothing.
fn reload(flags: &Flags, before: ServeConfig, control: &Control) -> ServeConfig {
    let config = match load(flags) {
        Ok(config) => config,
        Err(Failure::Message { text, .. }) => {
            note(format_args!("the configuration stays as it was: {text}"));
            return before;
        }
        Err(Failure::BrokenPipe) => return before,
    };
    if let Err(error) = control.replace(&config) {
        note(format_args!("the configuration stays as it was: {}", escape(&error.to_string())));
        return before;
    }
    for option in before.fixed_differences(&config) {
        note(format_args!("{option} changes only when the server is started again"));
    }
    note("the configuration was read again");
    config
}
