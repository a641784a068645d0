fn main() -> anyhow::Result<()> {
    if std::env::var_os("CARGO_FEATURE_LIVE").is_none() {
        return Ok(());
    }
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "tracer-ebpf",
            root_dir: "../tracer-ebpf",
            no_default_features: false,
            features: &[],
        }],
        aya_build::Toolchain::default(),
    )
}
