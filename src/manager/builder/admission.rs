//! What is judged before a device is opened.

use super::{DriverLibrary, VramManagerBuilder};
use crate::audit::EventKind;
use crate::clock::Clock;
use crate::error::VramError;
use crate::metrics::Metrics;
use crate::types::DeviceUuid;

impl VramManagerBuilder {
    /// Judges what can be judged before a device is opened. Opening one runs code of others in this process, and the variables
    /// that are looked for here name more of it.
    pub(super) fn admit_start(&mut self) -> Result<(), VramError> {
        let kind = self.device.kind();
        let admitted = self
            .policy
            .admit_device(kind)
            .and_then(|()| self.policy.admit_secret(self.secret.origin()))
            .and_then(|()| self.policy.admit_check(self.check).map(drop))
            .and_then(|()| self.policy.check_environment());
        admitted.inspect_err(|error| self.report_violation(error))?;
        self.policy.warn_of_environment();
        Ok(())
    }

    /// Leaves the event of a violation that is found before there is a device.
    pub(super) fn report_violation(&mut self, error: &VramError) {
        let VramError::PolicyViolation { rule, problem } = error else { return };
        let Ok(identity) = self.identity(self.device.kind(), DeviceUuid::from_bytes([0; 16]), 0) else { return };
        if let Ok(trail) = self.trail(&identity, &Clock::system(), &Metrics::new(&identity)) {
            trail.emit(EventKind::PolicyViolation { rule, problem: problem.clone(), suppressed: 0 });
        }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn library(&self) -> Result<DriverLibrary, VramError> {
        let told = self.driver_library.clone();
        if told.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(VramError::Config {
                setting: "driver library",
                problem: "is not an absolute path; give one that begins with /".to_owned(),
            });
        }
        Ok(DriverLibrary { told, only_roots: self.policy.demands_clean_environment() })
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "it has what it returns in the other build")]
    pub(super) fn library(&self) -> Result<DriverLibrary, VramError> {
        Ok(DriverLibrary { told: None })
    }
}
