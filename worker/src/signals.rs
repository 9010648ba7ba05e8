//! SIGHUP, SIGINT and SIGTERM.
//!
//! Owns [`Signals`]. The first signal is only noted; whoever works asks often and ends in order. The second one ends the process
//! at once, in case the orderly end hangs: device memory is then the driver's to clear.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use vram_residency::VramError;

use crate::exit::Failure;

/// How often a wait looks for signals.
const LOOK: Duration = Duration::from_millis(50);

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP, as from a terminal that goes away.
    HangUp,
    /// SIGINT, as from Ctrl-C.
    Interrupt,
    /// SIGTERM, as from a service manager.
    Terminate,
}

impl Signal {
    /// What shells report for a process that this signal ended: 128 and the signal's number.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// Whether a signal came.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    hang_up: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over these signals for the rest of the process.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let signals = Self::default();
        signals.register().map_err(|source| Failure::Io { what: "listening for signals", source })?;
        Ok(signals)
    }

    fn register(&self) -> io::Result<()> {
        let came = Arc::new(AtomicBool::new(false));
        for (number, signal, own) in [
            (SIGHUP, Signal::HangUp, &self.hang_up),
            (SIGINT, Signal::Interrupt, &self.interrupt),
            (SIGTERM, Signal::Terminate, &self.terminate),
        ] {
            // Order matters: the shutdown looks whether a signal came before this one is noted.
            flag::register_conditional_shutdown(number, i32::from(signal.exit_code()), Arc::clone(&came))?;
            flag::register(number, Arc::clone(&came))?;
            flag::register(number, Arc::clone(own))?;
        }
        Ok(())
    }

    /// Does work that holds nothing to be released. A signal does not wait for it: it ends with the process then.
    pub(crate) fn during<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let started = thread::Builder::new().spawn(move || drop(sender.send(work())));
        started.map_err(|source| Failure::Io { what: "starting a thread", source })?;
        loop {
            self.check()?;
            match receiver.recv_timeout(LOOK) {
                Ok(done) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(VramError::Internal { what: "reading the model panicked" }.into());
                }
            }
        }
    }

    /// Fails if a signal came. O(1).
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.terminate.load(Ordering::Relaxed) {
            Err(Failure::Interrupted(Signal::Terminate))
        } else if self.interrupt.load(Ordering::Relaxed) {
            Err(Failure::Interrupted(Signal::Interrupt))
        } else if self.hang_up.load(Ordering::Relaxed) {
            Err(Failure::Interrupted(Signal::HangUp))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_left_behind_when_a_signal_comes() {
        // covers: SCR-1
        let signals = Signals::default();
        assert_eq!(signals.during(|| 7).unwrap(), 7);
        assert!(matches!(signals.during(|| panic!("on purpose")), Err(Failure::Vram(VramError::Internal { .. }))));
        let terminate = Arc::clone(&signals.terminate);
        let (hold, held) = mpsc::channel::<()>();
        let ended = signals.during(move || {
            terminate.store(true, Ordering::Relaxed);
            held.recv()
        });
        assert!(matches!(ended, Err(Failure::Interrupted(Signal::Terminate))));
        drop(hold);
    }
}
