//! The behaviour suite lives in `tests/`; this crate only carries it.
