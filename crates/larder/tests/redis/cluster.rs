//! A cluster of one's own.
