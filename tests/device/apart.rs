//! A process for each case.
//!
//! On a GPU a fault ends every context of its process, and a kernel that hangs ends nothing: there each case runs in a process of
//! its own, which is given a time. Elsewhere `VRAM_TEST_APART=1` asks for the same.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use vram_residency_harness::Kind;

/// Set for the process of one case.
const ALONE: &str = "VRAM_TEST_ALONE";
/// Far beyond what any case takes, and little enough that one that hangs leaves time for the others.
const MOST: Duration = Duration::from_secs(100);

/// Whether this process is to give each case one of its own.
pub(crate) fn wanted(kind: Kind) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    !set(ALONE) && (matches!(kind, Kind::Cuda(_)) || set("VRAM_TEST_APART"))
}

/// Runs a case in a process of its own.
pub(crate) fn run(name: &str) -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args([name, "--exact", "--test-threads=1"]).env(ALONE, "1");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Read as they come, so that the case never waits for room in a pipe.
    let readers = [child.stdout.take().map(reader), child.stderr.take().map(reader)];
    let ended = wait(&mut child)?;
    let text: Vec<String> = readers.into_iter().flatten().filter_map(|reader| reader.join().ok()).collect();
    match ended {
        // The runner in that process says what it ran.
        Some(status) if status.success() && text.iter().any(|text| text.contains(" 1 passed; 0 failed; ")) => Ok(()),
        Some(status) => Err(format!("its process ended with {status}\n{}", quoted(&text)).into()),
        None => Err(format!("it did not end within {MOST:?}\n{}", quoted(&text)).into()),
    }
}

/// What that process said, set off so that nobody takes its results for those of this one.
fn quoted(text: &[String]) -> String {
    text.iter().flat_map(|text| text.lines()).map(|line| format!("| {line}\n")).collect()
}

fn reader(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is to show.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end, or ends it; `None` then.
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > MOST {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
