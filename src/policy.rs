//! What a deployment demands, as data.
//!
//! Owns [`Policy`]: two tables, `production()` and `development()`, whose rows can be overridden one by one. It judges what it
//! is shown: devices, files and environment are read by those who own them.

use std::time::Duration;

use crate::audit::AuditRequirement;
use crate::environment;
use crate::error::VramError;
use crate::keys::SecretOrigin;
use crate::panics::aside;
use crate::spec::Check;
use crate::types::{DeviceKind, Origin};

/// How long the last check by digest may be ago in production.
const PRODUCTION_FULL_CHECK: Duration = Duration::from_secs(60);

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
    weakest_check: Check,
    full_check_within: Option<Duration>,
}

impl Policy {
    /// For production: a real device, an expected digest for every shard, a stored secret, an audit trail that acknowledges
    /// durably, a clean environment, and a check after the work as well as before it.
    pub const fn production() -> Self {
        Self {
            name: "production",
            real_device: true,
            expected_digest: true,
            stored_secret: true,
            audit: AuditRequirement::Durable,
            clean_environment: true,
            verify_after: true,
            weakest_check: Check::Keyed,
            full_check_within: Some(PRODUCTION_FULL_CHECK),
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
            weakest_check: Check::Sample(1),
            full_check_within: None,
        }
    }

    setters! {
        /// Whether the mock device is refused.
        fn require_real_device(required: bool) => real_device = required;
        /// Whether every shard must be sealed against a digest that the caller expects.
        fn require_expected_digest(required: bool) => expected_digest = required;
        /// Whether the worker secret must come from a file or credential.
        fn require_stored_secret(required: bool) => stored_secret = required;
        /// What the audit trail must answer before a permissive step is taken.
        fn require_audit(required: AuditRequirement) => audit = required;
        /// Whether the environment must be clean; see [`check_environment`](Self::check_environment). Then the driver's library is also
        /// judged before it is loaded.
        fn require_clean_environment(required: bool) => clean_environment = required;
        /// Whether each result is held back until a check after the work has passed.
        fn require_verify_after(required: bool) => verify_after = required;
        /// The weakest check that an execute may ask for.
        fn weakest_check(check: Check) => weakest_check = check;
        /// How long the last check by digest may be ago, if that is bounded: a weaker one that is asked for later than that becomes one by
        /// digest.
        fn full_check_within(most: Option<Duration>) => full_check_within = most;
    }

    /// `production` or `development`: the table that this policy started from.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

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
            (
                self.clean_environment,
                "preloads, injection variables and libraries that others than root may change are allowed",
            ),
            (self.verify_after, "results may leave without a check after the work"),
            (!self.weakest_check.is_weaker_than(Check::Keyed), "checks may look at parts only"),
            (
                self.full_check_within.is_some_and(|most| most <= PRODUCTION_FULL_CHECK),
                "the last check by digest may be more than a minute ago",
            ),
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

    /// # Errors
    /// `INVALID_PARAMS` for a check of nothing, `POLICY_VIOLATION` for one that is weaker than allowed.
    pub(crate) fn admit_check(&self, check: Check) -> Result<Check, VramError> {
        if check.admit()?.is_weaker_than(self.weakest_check) {
            let weakest = self.weakest_check;
            let problem = format!(
                "{check} is asked for, and {weakest} is the weakest check allowed; ask for that, or leave it out"
            );
            return Err(VramError::PolicyViolation { rule: "weakest_check", problem });
        }
        Ok(check)
    }

    /// Whether the next check has to look at all bytes, where the last that did is so long ago.
    pub(crate) fn full_check_is_due(&self, age: Duration) -> bool {
        self.full_check_within.is_some_and(|most| age > most)
    }

    /// Judges what puts foreign code into this process, if this policy demands a clean environment. A worker calls it before it
    /// reads its secret; building a manager and [`enforce_vram_only_policy`](crate::VramManager::enforce_vram_only_policy) do it
    /// again.
    ///
    /// Refused are preloads and audits of the loader (`LD_PRELOAD`, `LD_AUDIT`, `/etc/ld.so.preload`), injections of GPU tools
    /// (`CUDA_INJECTION*`, `NVTX_INJECTION*`), and any library mapped into this process that others than root may change: the file
    /// and every folder of its real path must be root's, and not writable by group or others, sticky or not. The program itself is
    /// not judged: whoever may write it has the process anyway. `LD_LIBRARY_PATH` is no reason to refuse; a library of such a
    /// folder is. Blocks; O(libraries).
    ///
    /// ```
    /// use vram_residency::Policy;
    /// Policy::development().check_environment()?;
    /// # Ok::<(), vram_residency::VramError>(())
    /// ```
    ///
    /// # Errors
    /// `POLICY_VIOLATION`, which names what was found and what to do.
    pub fn check_environment(&self) -> Result<(), VramError> {
        if self.clean_environment { self.admit_environment(environment::problem()) } else { Ok(()) }
    }

    /// Says what this policy allows in the environment, or cannot see past.
    pub(crate) fn warn_of_environment(&self) {
        if self.clean_environment {
            if let Some(remark) = environment::remark() {
                aside!(|| tracing::warn!("{remark}"));
            }
        } else if let Some(problem) = environment::problem() {
            aside!(|| tracing::warn!(problem, "foreign code can be in this process; production's policy refuses it"));
        }
    }

    /// As [`relaxed`](Self::relaxed), and what weakens the rows that are kept in this process.
    pub(crate) fn relaxed_here(&self) -> Vec<&'static str> {
        let remark = self.clean_environment.then(environment::remark).flatten();
        self.relaxed().into_iter().chain(remark).collect()
    }

    #[cfg(feature = "cuda")]
    pub(crate) const fn demands_clean_environment(&self) -> bool {
        self.clean_environment
    }

    pub(crate) fn admit_environment(&self, found: Option<String>) -> Result<(), VramError> {
        match found {
            Some(problem) if self.clean_environment => {
                Err(VramError::PolicyViolation { rule: "clean_environment", problem })
            }
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
            (strict.admit_environment(Some("x".to_owned())), lax.admit_environment(Some("x".to_owned()))),
        ] {
            assert!(matches!(refused, Err(VramError::PolicyViolation { .. })));
            assert!(allowed.is_ok());
        }
        assert!(strict.admit_device(DeviceKind::Cuda).is_ok());
        assert!(strict.admit_secret(SecretOrigin::Stored).is_ok());
        assert!(strict.admit_origin(Origin::Expected).is_ok());
        assert!(strict.admit_environment(None).is_ok());
    }

    #[test]
    fn every_relaxed_row_is_named() {
        assert!(Policy::production().relaxed().is_empty());
        assert_eq!(Policy::development().relaxed().len(), 8);
        assert_eq!(Policy::production().require_real_device(false).relaxed(), ["the mock device is allowed"]);
        for (seconds, relaxed) in [(60, 0), (61, 1)] {
            let policy = Policy::production().full_check_within(Some(Duration::from_secs(seconds)));
            assert_eq!(policy.relaxed().len(), relaxed, "{seconds} s");
        }
        assert_eq!(Policy::default(), Policy::production());
    }
}
