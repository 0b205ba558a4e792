//! Tells the linker how to lay out the released program; see deploy/cold.ld.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=deploy/cold.ld");
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}/deploy/cold.ld", variable("CARGO_MANIFEST_DIR"));
    }
}
