//! Foreign code on order: a sink, a reader and an owner that do what a closure says.

use std::io::{self, Read};
use std::sync::Arc;

use vram_residency::{Ack, AuditError, AuditEvent, AuditSink};

/// A sink that does what a closure says.
pub struct Hook<F>(F);

/// A sink that does what a closure says.
pub fn hook<F: Fn(&AuditEvent) -> Result<Ack, AuditError> + Send + Sync>(take: F) -> Arc<Hook<F>> {
    Arc::new(Hook(take))
}

impl<F: Fn(&AuditEvent) -> Result<Ack, AuditError> + Send + Sync> AuditSink for Hook<F> {
    fn record(&self, event: &AuditEvent) -> Result<Ack, AuditError> {
        (self.0)(event)
    }
}

/// A sink that takes every event and does nothing with it.
pub fn silent() -> Arc<impl AuditSink> {
    hook(|event| {
        std::hint::black_box(event);
        Ok(Ack::Accepted)
    })
}

/// A reader that does what a closure says, which is told how many bytes were read before.
pub struct Reads<F>(usize, F);

/// A reader that does what a closure says, which is told how many bytes were read before.
pub fn reads<F: FnMut(usize, &mut [u8]) -> io::Result<usize>>(next: F) -> Reads<F> {
    Reads(0, next)
}

impl<F: FnMut(usize, &mut [u8]) -> io::Result<usize>> Read for Reads<F> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let bytes = (self.1)(self.0, room)?;
        self.0 = self.0.saturating_add(bytes);
        Ok(bytes)
    }
}

/// Fills the room with one byte, `most` times at the most; gives how often.
pub fn fill(room: &mut [u8], most: usize, byte: u8) -> usize {
    let bytes = room.len().min(most);
    room[..bytes].fill(byte);
    bytes
}

/// A source that nobody may read.
pub fn never() -> impl Read + Send {
    reads(|_, _| panic!("a source was read for which there is no room"))
}

/// An owner that runs a closure when it is dropped.
pub struct OnDrop<T, F: FnMut(&mut T)>(pub T, pub F);

impl<T, F: FnMut(&mut T)> Drop for OnDrop<T, F> {
    fn drop(&mut self) {
        (self.1)(&mut self.0);
    }
}
