//! Host staging memory.

/// Staging memory that a driver can copy from and to.
#[derive(Debug)]
pub(crate) struct HostBuffer;
