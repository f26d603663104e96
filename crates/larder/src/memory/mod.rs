//! L1: the memory tier.
