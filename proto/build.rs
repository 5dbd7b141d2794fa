//! Builds the contract without `protoc`: the messages and services, the descriptor set with its
//! options kept, and the static table of rules that the engine is driven by.
//!
//! It must never know a kind or a field by name: what is in the `.proto` files is all there is.

use std::error::Error;
use std::path::{Path, PathBuf};

#[path = "build/rules_source.rs"]
mod rules_source;

use rules_source::rules_source;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=guantong");
    println!("cargo::rerun-if-changed=google");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(proto_files(Path::new("guantong/v1"))?)?;

    std::fs::write(out.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;
    std::fs::write(out.join("rules.rs"), rules_source(&compiler.descriptor_pool())?)?;
    tonic_prost_build::configure()
        .bytes(".")
        .emit_rerun_if_changed(false)
        .client_mod_attribute(".", "#[cfg(feature = \"service\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"service\")]")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Every `.proto` file of the folder, in the order of their names.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
