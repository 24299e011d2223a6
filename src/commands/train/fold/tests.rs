use super::*;
use crate::config;
use crate::training::adamw::AdamW;

#[test]
fn initial_weights_are_taken_over_unless_they_are_another_networks_or_have_seen_what_is_held_out() {
    let config = |channels: &str| {
        let tiny = ["features.f_maps=4", "features.levels=2", "features.pooling=[[1, 2, 2]]", channels];
        config::load(None, &tiny.map(str::to_owned)).unwrap()
    };
    let model = |channels, seed| Network::new(&config(channels).network(), tch::Device::Cpu, seed);
    let (folder, source) = (tempfile::tempdir().unwrap(), model("features.output_channels=4", 1));
    let state = checkpoint::State::START;
    let about = Provenance {
        ssl3d: String::new(),
        config: String::new(),
        fold: String::new(),
        trained_on: vec!["7".to_owned()],
        data: String::new(),
        frame: None,
        state,
    };
    let path = initial_weights(&format!("{}/{{fold}}.safetensors", folder.path().display()), Some(3));
    assert_eq!(path, folder.path().join("fold_3.safetensors"));
    let of = |model: &Network| weights::variables(&model.variables);
    let withheld = |id: &str| [id.to_owned()];

    let same = model("features.output_channels=4", 2);
    let missing = start_from(&same, &path, &[]).unwrap_err().to_string();
    assert!(missing.contains("fold_3.safetensors") && !missing.contains('\n'), "{missing}");
    // A checkpoint has the optimiser's tensors too.
    let adamw = AdamW::new(of(&source), 0.0);
    checkpoint::write(&path, &source, &[adamw], &about).unwrap();
    let seen = start_from(&same, &path, &withheld("7")).unwrap_err().to_string();
    assert!(seen.contains("trained on scan 7") && seen.contains("{fold}"), "{seen}");
    assert!(of(&same) != of(&source));
    assert_eq!(start_from(&same, &path, &withheld("8")).unwrap(), ["7"]);
    assert!(of(&same) == of(&source));
    let other = start_from(&model("features.output_channels=5", 2), &path, &[]).unwrap_err().to_string();
    assert!(other.contains("shape [4]") && other.contains("[features]") && !other.contains('\n'), "{other}");
    // Another program's weights say nothing of what they were trained on.
    weights::write(&path, &of(&source), "").unwrap();
    assert!(start_from(&same, &path, &withheld("7")).unwrap().is_empty());
}
