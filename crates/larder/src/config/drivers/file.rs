//! The file driver's options.

use super::prune_interval;
use crate::config::store::StoreOptions;
use crate::driver::file::{FileOptions, LEVELS_MAX};
use crate::error::Result;

pub(super) fn read(options: &mut StoreOptions) -> Result<FileOptions> {
    for (other, name) in
        [("path", "directory"), ("location", "directory"), ("pruneInterval", "prune_interval")]
    {
        options.alias(other, name)?;
    }
    let directory = options.location("directory")?;
    let (max_bytes, prune_interval) = (options.size("max_bytes")?, prune_interval(options)?);
    let (levels, suffix) = (options.integer("levels", 0..=i64::from(LEVELS_MAX))?, options.text("suffix")?);
    let create = options.boolean("create")?;

    let mut file = FileOptions::new(options.required("directory", directory)?);
    file.max_bytes = max_bytes;
    file.prune_interval = prune_interval.unwrap_or(file.prune_interval);
    file.levels = levels.and_then(|levels| u8::try_from(levels).ok()).unwrap_or(file.levels);
    file.suffix = suffix.unwrap_or(file.suffix);
    file.create = create.unwrap_or(file.create);
    file.check().map_err(|error| options.refuse(error.message()))?;
    Ok(file)
}
