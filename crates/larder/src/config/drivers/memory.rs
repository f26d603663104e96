//! The memory driver's options.

use crate::config::stacks::MEMORY_ALIASES;
use crate::config::store::StoreOptions;
use crate::error::Result;
use crate::memory::MemoryOptions;

pub(super) fn read(options: &mut StoreOptions) -> Result<MemoryOptions> {
    for (other, name) in MEMORY_ALIASES {
        options.alias(other, name)?;
    }
    let mut memory = MemoryOptions::default();
    if let Some(items) = options.integer("max_items", 1..=i64::MAX)? {
        memory.max_items = items.unsigned_abs();
    }
    memory.max_bytes = options.size("max_bytes")?;
    memory.max_entry_bytes = options.size("max_entry_bytes")?;
    Ok(memory)
}
