//! The steps, by topic. Each does what it says and asserts that it was done.

mod adoption;
mod audit;
mod batches;
mod capacity;
mod command_line;
mod device;
mod devices;
mod draining;
mod execution;
mod freshness;
mod guards;
mod outcome;
mod presented;
mod release;
mod scratch;
mod sealing;
mod sets;
mod setup;
mod streams;
mod verification;
