//! What a deployment demands, as data.
//!
//! Owns [`Policy`]: two tables, `production()` and `development()`, whose rows can be overridden one by one. It judges what it
//! is shown and never looks for itself: devices, files and environment are read by those who own them.

use crate::audit::AuditRequirement;
use crate::driver::DeviceKind;
use crate::error::VramError;
use crate::identity::Origin;
use crate::keys::SecretOrigin;

/// Environment variables that put foreign code into this process or under its driver calls.
pub(crate) const INJECTION_VARIABLES: [&str; 5] =
    ["LD_PRELOAD", "LD_AUDIT", "CUDA_INJECTION64_PATH", "CUDA_INJECTION32_PATH", "NVTX_INJECTION64_PATH"];

/// What a manager demands of its surroundings.
///
/// ```
/// use vram_residency::Policy;
/// let strict = Policy::production();
/// let tests = Policy::development().require_expected_digest(true);
/// assert_ne!(strict, tests);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Policy {
    name: &'static str,
    real_device: bool,
    expected_digest: bool,
    stored_secret: bool,
    audit: AuditRequirement,
    clean_environment: bool,
    verify_after: bool,
}

impl Policy {
    /// For production: a real device, an expected digest for every shard, a stored secret, an audit trail that acknowledges
    /// durably, no preload or injection variables, and a check after the work as well as before it.
    pub const fn production() -> Self {
        Self {
            name: "production",
            real_device: true,
            expected_digest: true,
            stored_secret: true,
            audit: AuditRequirement::Durable,
            clean_environment: true,
            verify_after: true,
        }
    }

    /// For development and tests: everything that production refuses is allowed, and said loudly.
    pub const fn development() -> Self {
        Self {
            name: "development",
            real_device: false,
            expected_digest: false,
            stored_secret: false,
            audit: AuditRequirement::BestEffort,
            clean_environment: false,
            verify_after: false,
        }
    }

    /// Whether the mock device is refused.
    pub const fn require_real_device(mut self, required: bool) -> Self {
        self.real_device = required;
        self
    }

    /// Whether every shard must be sealed against a digest that the caller expects.
    pub const fn require_expected_digest(mut self, required: bool) -> Self {
        self.expected_digest = required;
        self
    }

    /// Whether the worker secret must come from a file or credential.
    pub const fn require_stored_secret(mut self, required: bool) -> Self {
        self.stored_secret = required;
        self
    }

    /// What the audit trail must answer before a permissive step is taken.
    pub const fn require_audit(mut self, required: AuditRequirement) -> Self {
        self.audit = required;
        self
    }

    /// Whether preload and injection variables are refused.
    pub const fn require_clean_environment(mut self, required: bool) -> Self {
        self.clean_environment = required;
        self
    }

    /// Whether each result is held back until a check after the work has passed.
    pub const fn require_verify_after(mut self, required: bool) -> Self {
        self.verify_after = required;
        self
    }

    /// `production` or `development`: the table that this policy started from.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What a permissive step asks of the audit trail.
    pub(crate) const fn audit_requirement(&self) -> AuditRequirement {
        self.audit
    }

    /// The rows that are laxer than production, in words for the start event. O(1).
    #[must_use]
    pub fn relaxed(&self) -> Vec<&'static str> {
        [
            (self.real_device, "the mock device is allowed"),
            (self.expected_digest, "measured seals are allowed"),
            (self.stored_secret, "a secret that is not stored is allowed"),
            (self.audit == AuditRequirement::Durable, "the audit trail need not acknowledge durably"),
            (self.clean_environment, "preload and injection variables are allowed"),
            (self.verify_after, "results may leave without a check after the work"),
        ]
        .into_iter()
        .filter_map(|(required, words)| (!required).then_some(words))
        .collect()
    }

    pub(crate) fn admit_device(&self, kind: DeviceKind) -> Result<(), VramError> {
        match kind {
            DeviceKind::Mock if self.real_device => Err(violation(
                "real_device",
                "the device is the mock, which protects nothing; select a CUDA device or use the development policy",
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn admit_secret(&self, origin: SecretOrigin) -> Result<(), VramError> {
        match origin {
            SecretOrigin::Stored => Ok(()),
            _ if !self.stored_secret => Ok(()),
            _ => Err(violation(
                "stored_secret",
                "the worker secret was made in this process; load it with WorkerSecret::from_file or from_systemd_credential",
            )),
        }
    }

    pub(crate) fn admit_origin(&self, origin: Origin) -> Result<(), VramError> {
        match origin {
            Origin::Measured if self.expected_digest => Err(violation(
                "expected_digest",
                "the shard comes without a digest that someone vouched for; give ShardSpec::expect",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a result waits for a check after the work: as it was asked for, or as this policy has it.
    pub(crate) fn admit_verify_after(&self, asked: Option<bool>) -> Result<bool, VramError> {
        match asked {
            Some(false) if self.verify_after => Err(violation(
                "verify_after",
                "the execution asks for no check after the work; leave verify_after out, or set it to true",
            )),
            asked => Ok(asked.unwrap_or(self.verify_after)),
        }
    }

    /// Judges the names of the injection variables that are set.
    pub(crate) fn admit_environment(&self, set: &[&'static str]) -> Result<(), VramError> {
        match set.first() {
            Some(variable) if self.clean_environment => Err(VramError::PolicyViolation {
                rule: "clean_environment",
                problem: format!("{variable} is set and can put foreign code into this process; unset it"),
            }),
            _ => Ok(()),
        }
    }
}

impl Default for Policy {
    /// `production()`: nobody gets the lax one by forgetting to choose.
    fn default() -> Self {
        Self::production()
    }
}

fn violation(rule: &'static str, problem: &str) -> VramError {
    VramError::PolicyViolation { rule, problem: problem.to_owned() }
}

/// The injection variables that are set in this process and not empty.
pub(crate) fn injection_variables_set() -> Vec<&'static str> {
    INJECTION_VARIABLES
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_refuses_what_development_allows() {
        // covers: SEAL-9
        let (strict, lax) = (Policy::production(), Policy::development());
        for (refused, allowed) in [
            (strict.admit_device(DeviceKind::Mock), lax.admit_device(DeviceKind::Mock)),
            (strict.admit_secret(SecretOrigin::Process), lax.admit_secret(SecretOrigin::Process)),
            (strict.admit_origin(Origin::Measured), lax.admit_origin(Origin::Measured)),
            (strict.admit_environment(&["LD_PRELOAD"]), lax.admit_environment(&["LD_PRELOAD"])),
        ] {
            assert!(matches!(refused, Err(VramError::PolicyViolation { .. })));
            assert!(allowed.is_ok());
        }
        assert!(strict.admit_device(DeviceKind::Cuda).is_ok());
        assert!(strict.admit_secret(SecretOrigin::Stored).is_ok());
        assert!(strict.admit_origin(Origin::Expected).is_ok());
        assert!(strict.admit_environment(&[]).is_ok());
    }

    #[test]
    fn every_relaxed_row_is_named() {
        assert!(Policy::production().relaxed().is_empty());
        assert_eq!(Policy::development().relaxed().len(), 6);
        assert_eq!(Policy::production().require_real_device(false).relaxed(), ["the mock device is allowed"]);
        assert_eq!(Policy::default(), Policy::production());
    }
}
