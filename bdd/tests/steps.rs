//! The steps, by topic. Each does what it says and asserts that it was done.

mod adoption;
mod audit;
mod batches;
mod capacity;
mod check_and_use;
mod command_line;
mod concurrency;
mod device;
mod devices;
mod draining;
mod execution;
mod freshness;
mod guards;
mod keys;
mod outcome;
mod presented;
mod recovery;
mod release;
mod scratch;
mod sealing;
mod sets;
mod setup;
mod streams;
mod verification;

pub(crate) use keys::take_credential;
