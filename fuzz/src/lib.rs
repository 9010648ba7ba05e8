//! What must hold for every input. One function for each target; it panics when the property does not hold.
//!
//! Everything goes through the public API of the library, but for the worker's options, whose source is compiled in. Where a
//! rule can be written down a second time (the seal format, the spelling of digests and names), it is, after the
//! specification, and both must agree on every input: on refusals too.

mod command_line;
mod forgery;
mod names;
mod reference;
mod safetensors;
mod safetensors_differential;
mod seal;

#[path = "../../worker/src/cli.rs"]
#[allow(unreachable_pub, dead_code, reason = "the worker's own source")]
mod cli;

pub use command_line::command_line;
pub use forgery::forgery;
pub use names::names;
pub use safetensors::safetensors;
pub use safetensors_differential::safetensors_differential;
pub use seal::{seal, seal_text};

/// A message for people: one line, of bounded length, without control characters.
fn assert_presentable(message: &str) {
    assert!(message.len() < 2000, "a message of {} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "control characters in {message:?}");
}
