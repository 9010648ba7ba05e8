//! Wiping: zero, then prove zero.
//!
//! A wipe that is not proven did not happen. The kernel counts what is not zero and writes its result into the first 32 bytes of
//! the check space, which proves itself last: the rest of it by the kernel, those 32 bytes by being read back and looked at.

use super::check::POISON;
use super::{Device, DeviceFailure, Stream};
use crate::driver::HostBuffer;
use crate::types::{DevicePtr, LaunchResult, Span};

const PROOF: &str = "zero proof";

const RESULT: u64 = 32;

impl Device {
    /// Zeroes the spans, then `check`, and proves every byte zero. `proof` is host memory of at least 32 bytes; `check` is longer
    /// than 32.
    pub(super) fn wipe(
        &self,
        stream: &Stream,
        proof: &mut HostBuffer,
        spans: &[Span],
        check: Span,
    ) -> Result<(), DeviceFailure> {
        for span in spans {
            self.driver.fill(stream.id, *span, 0)?;
        }
        for span in spans {
            self.prove_zero(stream, proof, *span, check.ptr)?;
        }
        let rest = check.ptr.checked_add(RESULT).zip(check.bytes.checked_sub(RESULT));
        let (ptr, bytes) = rest.filter(|(_, bytes)| *bytes > 0).ok_or(DeviceFailure::Unproven(PROOF))?;
        self.driver.fill(stream.id, check, 0)?;
        self.prove_zero(stream, proof, Span { ptr, bytes }, check.ptr)?;
        self.clear_result(stream, proof, check.ptr)
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
        self.driver.fill(stream.id, Span { ptr: result, bytes: RESULT }, POISON)?;
        self.driver.count_nonzero(stream.id, span, result, nonce)?;
        let found = self.read_result(stream, proof, result)?;
        let expected = LaunchResult { nonce, covered: span.bytes, found: 0, reserved: 0 };
        if LaunchResult::from_bytes(&found) == expected { Ok(()) } else { Err(DeviceFailure::Unproven(PROOF)) }
    }

    /// Zeroes the 32 bytes that held the last result and reads them back.
    fn clear_result(&self, stream: &Stream, proof: &mut HostBuffer, result: DevicePtr) -> Result<(), DeviceFailure> {
        self.driver.fill(stream.id, Span { ptr: result, bytes: RESULT }, 0)?;
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
