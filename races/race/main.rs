//! Races: the real engine (stack, memory tier, memory driver), in thousands of orders that a scheduler chooses.
//!
//! That they can fail was tried: each line below is a change of the library, and a race that failed then. Whoever
//! changes the races tries them again.
//!
//! - `Flights::land` does not look at the slot: `a_change_wins_over_the_load_that_it_overtakes_in_memory`.
//! - `Flights::supersede`, or `supersede_if`, leaves the slot: the same.
//! - `Flights::finish` wakes before it sets the outcome, or leaves the slot: `there_is_one_load_however_many_ask_…`.
//! - `Flights::finish` takes whatever slot is there: `anything_at_once_…`.
//! - `Flight::wait` looks before it registers: `there_is_one_load_however_many_ask_…`.
//! - `Flights::join` takes outdated flights: `a_change_wins_over_the_load_that_it_overtakes_…`.
//! - `Writing::newest` is ignored: `two_changes_leave_memory_and_the_store_alike`.
//! - `ReadTicket::land` does not look, or its drop leaves the slot: the same.
//! - `Flights::drained` looks before it registers: `a_closed_stack_loads_nothing_and_leaves_the_store_alone`.
//! - a load is written with `When::Always`, or a delete leaves no tombstone:
//!   `a_slow_load_does_not_bury_what_another_process_did`.
//! - an explicit write yields to what is newer, a delete that was read is not heard of, or is no news to older writes:
//!   `a_set_does_not_reach_memory_after_its_process_heard_of_something_newer`.
//! - a load that the store took and memory did not is not heard of, or a delete supersedes no load:
//!   `a_change_wins_over_the_load_that_it_overtakes_in_both`.
//! - a set in memory gets its stamp before the lock: `anything_at_once_in_memory`.
//! - `Spaces::newest` is not raised: `a_change_wins_over_the_load_that_it_overtakes_…`.
//! - what was found lands without being judged again:
//!   `what_a_change_has_ended_is_not_served_stale_to_whoever_is_out_of_patience`.
//! - a write that is abandoned leaves memory as it was, or a clear that is spares writes under way:
//!   `whoever_gives_up_leaves_memory_and_the_store_alike`.
//! - a flight does not look into memory first: `there_is_one_load_however_many_ask_for_memory`.
//! - closing does not wait for loads, or a load that has begun does not look whether it is closed:
//!   `a_closed_stack_loads_nothing_and_leaves_the_store_alone`.
//! - what is stale is served unasked: `what_a_change_has_ended_is_not_served_stale_to_whoever_is_out_of_patience`.
//! - a forced load joins another one, or what is started beside it is not forced: `loads_beside_loads_…`.
//! - a slide is judged by the time of its read: `what_has_expired_is_not_slid_…`.
//! - a slide is a rewrite: `a_read_that_slides_does_not_undo_a_load`.
//! - the memory driver looks outside of its lock, or memory takes what is older:
//!   `a_change_wins_over_the_load_that_it_overtakes_in_both`.

mod beside;
mod changes;
mod checker;
mod history;
mod leaving;
mod loads;
mod processes;
mod world;
