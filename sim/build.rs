//! Refuses to build the simulator without madsim's cfg: without it madsim
//! compiles to the real clock, network and entropy, and no run could be repeated.

fn main() {
    println!("cargo::rerun-if-env-changed=CARGO_CFG_MADSIM");
    if std::env::var_os("CARGO_CFG_MADSIM").is_none() {
        println!(
            "cargo::error=antler-sim needs `--cfg madsim`, which stands in .cargo/config.toml of \
             the workspace. It gets lost when RUSTFLAGS is set in the environment (unset it, or \
             add `--cfg madsim` to it) and when cargo runs outside the workspace's folder (with \
             --manifest-path)."
        );
    }
}
