//! The steps, by topic. Each does what it says and asserts that it was done.

mod adoption;
mod command_line;
mod execution;
mod given;
mod outcome;
mod release;
mod seals;
mod secrets;
mod trail;
