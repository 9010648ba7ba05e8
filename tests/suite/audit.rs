//! The trail: which events each operation and each failure leaves, in which order, and what happens when the trail itself
//! fails.

mod blocking;
mod failures;
mod floods;
mod required;
mod steps;

use crate::*;
