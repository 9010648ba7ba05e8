//! Wiping: zero, then prove zero.
//!
//! A wipe that is not proven did not happen. Two regions of a shard prove each other: each one's result is written into the
//! other while that other is, or is about to be, proven itself; the last 32 bytes are read back and looked at.

use super::check::POISON;
use super::{Device, DeviceFailure, Stream};
use crate::driver::{DevicePtr, HostBuffer, LaunchResult, Span};

const PROOF: &str = "zero proof";

impl Device {
    /// Zeroes both spans and proves every byte of both zero. `proof` is host memory of at least 32 bytes.
    pub(super) fn wipe(
        &self,
        stream: &Stream,
        proof: &mut HostBuffer,
        first: Span,
        second: Span,
    ) -> Result<(), DeviceFailure> {
        self.driver.fill(stream.id, first, 0)?;
        self.prove_zero(stream, proof, first, second.ptr)?;
        self.driver.fill(stream.id, second, 0)?;
        self.prove_zero(stream, proof, second, first.ptr)?;
        self.clear_result(stream, proof, first.ptr)
    }

    /// Counts what is not zero in `span`, with the kernel's result at `result`, outside of it.
    fn prove_zero(
        &self,
        stream: &Stream,
        proof: &mut HostBuffer,
        span: Span,
        result: DevicePtr,
    ) -> Result<(), DeviceFailure> {
        let nonce = self.nonce();
        self.driver.fill(stream.id, Span { ptr: result, bytes: 32 }, POISON)?;
        self.driver.count_nonzero(stream.id, span, result, nonce)?;
        let found = self.read_result(stream, proof, result)?;
        let expected = LaunchResult { nonce, covered: span.bytes, found: 0, reserved: 0 };
        if LaunchResult::from_bytes(&found) == expected { Ok(()) } else { Err(DeviceFailure::Unproven(PROOF)) }
    }

    /// Zeroes the 32 bytes that held the last result and reads them back.
    fn clear_result(&self, stream: &Stream, proof: &mut HostBuffer, result: DevicePtr) -> Result<(), DeviceFailure> {
        self.driver.fill(stream.id, Span { ptr: result, bytes: 32 }, 0)?;
        if self.read_result(stream, proof, result)? == [0; LaunchResult::BYTES] {
            Ok(())
        } else {
            Err(DeviceFailure::Unproven(PROOF))
        }
    }

    fn read_result(
        &self,
        stream: &Stream,
        proof: &mut HostBuffer,
        result: DevicePtr,
    ) -> Result<[u8; LaunchResult::BYTES], DeviceFailure> {
        proof.bytes_mut()?.fill(POISON);
        self.driver.copy_to_host(stream.id, proof, 0, result, LaunchResult::BYTES)?;
        stream.synchronize()?;
        proof.bytes_mut()?.first_chunk().copied().ok_or(DeviceFailure::Unproven(PROOF))
    }
}
