//! Parses, runs, and ends with the exit code.

fn main() -> std::process::ExitCode {
    datahub::cli::main().into()
}
