//! The steps, by topic. Each does what it says and asserts that it was done.

mod audit;
mod capacity;
mod device;
mod execution;
mod outcome;
mod presented;
mod release;
mod sealing;
mod setup;
mod verification;
