//! `entail check`: whether recorded histories of clients are ones that a causally convergent store can have.
//!
//! It exits 0 when they are, 1 when not, with the operations that show it, and 2 when a file is no history.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::history::{HistoryError, Report, check, read_history};

/// Files of recorded operations.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Histories, one JSON object an operation; each is judged by itself. A dash reads standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// `entail check`.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut wrong = false;
    for file in &args.files {
        match judged(file) {
            Ok(report) => {
                println!("{}", told(file, &report));
                wrong |= !report.violations.is_empty();
            }
            Err(error) => {
                eprintln!("entail: {}: {error}", file.display());
                return ExitCode::from(2);
            }
        }
    }
    if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn judged(file: &Path) -> Result<Report, HistoryError> {
    let records = if file == Path::new("-") {
        read_history(io::stdin().lock())?
    } else {
        let opened = File::open(file).map_err(|error| HistoryError::Io { line: 0, error })?;
        read_history(BufReader::new(opened))?
    };
    check(&records)
}

/// The report in a few lines.
fn told(file: &Path, report: &Report) -> String {
    let Report { operations, keys, chains, finals, account, violations } = report;
    let verdict = match violations.len() {
        0 => "causally convergent".to_owned(),
        n => format!("NOT causally convergent, {n} found"),
    };
    let mut text = format!(
        "{}: {verdict}: {operations} operations on {keys} keys in {chains} chains, {finals} words of replicas at the end",
        file.display()
    );
    if *finals > 0 {
        text.push_str(&format!("\n  {account}"));
    }
    for violation in violations {
        text.push_str(&format!("\n  {violation}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn exit(lines: &str) -> ExitCode {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(lines.as_bytes()).expect("it can be written");
        run(&CheckArgs { files: vec![file.path().to_owned()] })
    }

    #[test]
    fn the_exit_status_tells() {
        let put =
            r#"{"session":"a","op":"put","key":"x","value":"1","node":"n","start_us":1,"end_us":2,"outcome":"ok"}"#;
        let get = r#"{"session":"a","op":"get","key":"x","node":"n","start_us":3,"end_us":4,"outcome":"absent"}"#;
        assert_eq!(exit(put), ExitCode::SUCCESS);
        assert_eq!(exit(&format!("{put}\n{get}")), ExitCode::FAILURE);
        assert_eq!(exit("{}"), ExitCode::from(2));
        assert_eq!(run(&CheckArgs { files: vec![PathBuf::from("no such file")] }), ExitCode::from(2));
    }
}
