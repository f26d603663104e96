//! `larder drivers`.

use larder::config::{DRIVERS, DriverInfo};
use serde_json::json;

use super::print_json;
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::print_line;
use crate::store::registry;

/// Prints every driver that there is, whether or not this build has it.
pub(crate) fn drivers(json: bool) -> Outcome {
    let registry = registry();
    for info in DRIVERS {
        let is_here = registry.names().any(|name| name == info.name);
        if json { as_json(info, is_here)? } else { as_text(info, is_here)? }
    }
    Ok(FOUND)
}

fn as_json(info: &DriverInfo, is_here: bool) -> Result<(), Failure> {
    let options: Vec<_> = info
        .options
        .iter()
        .map(|option| json!({ "name": option.name, "also": option.aliases, "default": option.default }))
        .collect();
    print_json([
        ("driver", json!(info.name)),
        ("about", json!(info.about)),
        ("here", json!(is_here)),
        ("feature", json!(info.feature)),
        ("urls", json!(schemes(info))),
        ("options", json!(options)),
    ])
}

fn as_text(info: &DriverInfo, is_here: bool) -> Result<(), Failure> {
    let lacking = match info.feature {
        Some(feature) if !is_here => format!(" (not in this build: it needs the feature {feature})"),
        _ => String::new(),
    };
    print_line(format_args!("{}: {}{lacking}", info.name, info.about))?;
    print_line(format_args!("  URLs  {}", schemes(info).join(" ")))?;
    let width = info.options.iter().map(|option| option.name.len()).max().unwrap_or_default();
    for option in info.options {
        print_line(format_args!("  {:width$}  {}", option.name, option.default))?;
    }
    Ok(())
}

/// What the URLs of a driver begin with.
fn schemes(info: &DriverInfo) -> Vec<String> {
    std::iter::once(&info.name).chain(info.schemes).map(|scheme| format!("{scheme}:")).collect()
}
