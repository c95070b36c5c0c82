//! Parses, runs, and ends with the exit code.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "lab")]
    if datahub::lab::k3s::is_called() {
        return datahub::lab::k3s::main();
    }
    datahub::cli::main().into()
}
