//! The compliance suite over every driver, every decorator, and a chaos driver that is told nothing.
//!
//! A new driver gets a module here; whatever configurations change how it works get a suite each.

#![expect(clippy::unwrap_used, reason = "what cannot be opened fails its test")]

mod scratch;

#[cfg(all(feature = "file", unix))]
mod file {
    use std::time::Duration;

    use larder::driver::file::{FileDriver, FileOptions};
    use larder::testing::Chaos;

    use crate::scratch::Scratch;

    async fn open_with(change: impl FnOnce(&mut FileOptions)) -> Scratch<FileDriver> {
        Scratch::open(async |directory| {
            let mut options = FileOptions::new(directory);
            change(&mut options);
            FileDriver::open(options).await.unwrap()
        })
        .await
    }

    larder::driver_suite!(plain, async || open_with(|_| {}).await);

    larder::driver_suite!(chaos_that_is_told_nothing, async || Chaos::new(open_with(|_| {}).await));

    larder::driver_suite!(without_levels, async || {
        open_with(|options| {
            options.levels = 0;
            options.suffix = String::new();
        })
        .await
    });

    larder::driver_suite!(that_prunes_all_the_time, async || {
        open_with(|options| {
            options.prune_interval = Some(Duration::from_millis(10));
            options.max_bytes = Some(1 << 40);
        })
        .await
    });
}
