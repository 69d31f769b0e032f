//! Programs of the machine that runs the tests: `ip`, `iptables`, `mount` and the like.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program, `input` on its standard input; what it printed.
///
/// # Errors
/// In words, when it is not there or does not end well.
pub fn run_with(words: &[&str], input: &str) -> Result<String, String> {
    let said = words.join(" ");
    let [name, arguments @ ..] = words else { panic!("a program has a name") };
    let started = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{said}: {error}"));
    let mut child = started?;
    // One that does not read its input has ended already; its status tells.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| format!("{said}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{said}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// The same without input, the words divided by blanks.
pub fn run(line: &str) -> Result<String, String> {
    run_with(&line.split(' ').collect::<Vec<_>>(), "")
}

/// Runs what must succeed once the machine has shown that it can.
pub fn must(line: &str) {
    if let Err(error) = run(line) {
        panic!("{error}");
    }
}

/// Runs what may have nothing to do, as when something half made is taken away.
pub fn perhaps(line: &str) {
    // There is nobody to tell, and nothing to be done about it.
    let _ = run(line);
}

/// True when what has this name was left by a process that was killed: the name goes on with its id and a hyphen.
pub fn is_left(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
