//! Rebuilds when a built-in role or template is added or removed: the directory macro alone does not notice.

fn main() {
    for folder in ["roles", "templates"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
