//! What the engine does to the tiers, over every choice of them.

mod cost;
mod flow;
mod hostile;
mod loads;
mod model;
mod rewrites;
