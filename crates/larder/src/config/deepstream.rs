//! The `cache` block of a deepstream server's configuration. Knows nothing of drivers' options.

use super::node::{Key, Node, Value, error_at};
use super::read::Item;
use super::store;
use crate::error::Result;

/// What the stack is called.
const NAME: &str = "cache";

/// Adds the stack that the block stands for: no memory tier, since deepstream asks its cache each time, and no end to
/// what is stored unless `options` have a `ttl`, which is in seconds there.
pub(super) fn add(stacks: &mut Node, mut cache: Item) -> Result<()> {
    let origin = cache.node.origin.clone();
    if stacks.member(NAME).is_some() {
        return Err(error_at(
            &origin,
            NAME,
            "is the stack \"cache\" of deepstream's, and \"stacks\" has one too",
        ));
    }
    store::flatten(&mut cache.node);
    if cache.node.member("driver").is_none() && cache.node.member("url").is_none() {
        return Err(cache.error("expected deepstream's \"name\" and \"options\""));
    }
    let mut options = cache.node.take_members();
    let ttl = match options.iter().position(|(key, _)| key.name == "ttl") {
        Some(place) => {
            let (_, ttl) = options.remove(place);
            let ttl = Item::new(ttl, "cache.options.ttl");
            // A century and a bit: what is longer is a mistake, or milliseconds.
            match ttl.integer(0..=i64::from(u32::MAX))? {
                0 => Node::text("forever", ttl.node.origin),
                seconds => Node::text(format!("{seconds}s"), ttl.node.origin),
            }
        }
        None => Node::text("forever", origin.clone()),
    };
    let store = Node { value: Value::Map(options), origin: origin.clone() };
    let off = Node { value: Value::Bool(false), origin: origin.clone() };
    let key = |name: &str| Key { name: name.to_owned(), origin: origin.clone() };
    let stack = Value::Map(vec![(key("l1"), off), (key("ttl"), ttl), (key("l2"), store)]);
    let mut members = stacks.take_members();
    members.push((key(NAME), Node { value: stack, origin: origin.clone() }));
    stacks.value = Value::Map(members);
    Ok(())
}
