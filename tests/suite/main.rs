//! The suites over the public API, on the mock: what is promised of managers, seals, checks, executions, memory and the trail.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::redundant_pub_crate,
    clippy::mem_forget
)]

mod adoption;
mod audit;
mod cross_check;
mod difference;
mod errors;
mod executions;
mod expectations;
mod failing_device;
mod flips;
mod foreign;
mod freshness;
mod keyed;
mod limits;
mod lying_device;
mod patrol;
mod properties;
mod read_only;
mod scratch;
mod sets;
mod shutdown;
mod sources;
mod states;
mod strengths;
mod threads;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use vram_residency::*;
use vram_residency_harness::*;
