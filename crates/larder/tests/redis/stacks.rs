//! Stacks over one Redis.
