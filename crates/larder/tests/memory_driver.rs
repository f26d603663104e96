//! The memory driver against what the engine relies on, without limits and with all of them.

use larder::driver::memory::MemoryDriver;
use larder::memory::MemoryOptions;

larder::driver_suite!(unlimited, async || MemoryDriver::default());

larder::driver_suite!(limited, async || {
    let mut options = MemoryOptions::new(20_000);
    options.max_bytes = Some(256 << 20);
    options.max_entry_bytes = Some(8 << 20);
    MemoryDriver::new(options)
});
