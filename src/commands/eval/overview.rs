//! Each system in one line beside its published figure, and the page of all systems.

use super::systems::System;
use crate::cli;
use crate::config::Config;
use crate::episode::Source;
use crate::metrics::Protocol;
use crate::network::System as Kind;
use crate::prototypes::Method;
use crate::report::compare::Comparison;
use crate::report::html::{HtmlTable, Page};
use crate::report::published::{self, Benchmark, Published};
use crate::report::scores::ProtocolScores;
use crate::report::table;
use crate::training;

/// A line for each system and protocol.
pub fn lines<'a>(systems: &'a [System]) -> Vec<table::System<'a>> {
    let of_system = |system: &'a System| {
        let System { name, config, setups, summary, .. } = system;
        let is_floor = !config.system.is_trained();
        let is_learned = !is_floor && config.supervision.source != Source::Untrained;
        summary.iter().map(move |scores| table::System {
            name,
            network: network(config),
            learns_from: match config.supervision.source {
                _ if !is_learned => "-",
                Source::Organs if config.training.initial_weights == training::GENERALIST => {
                    "generated anatomies, then organs"
                }
                Source::Organs if config.training.initial_weights != training::RANDOM => "supervoxels, then organs",
                Source::Organs => "organs",
                Source::Generated => "generated anatomies",
                Source::Supervoxels | Source::Untrained => "supervoxels",
            },
            prototypes: match (config.system, config.prototypes.method) {
                (Kind::SeNet | Kind::MaskCopy | Kind::MaskAffine, _) => "-",
                (_, Method::Alp) => "ALP",
                (_, Method::Global) => "global",
            },
            setup: &setups[&scores.protocol],
            scores,
            published: published(system, scores.protocol),
        })
    };
    systems.iter().flat_map(of_system).collect()
}

/// What the networks see: "3D", "2D", "2 x 3D", ..., or "-" where there are none.
pub fn network(config: &Config) -> String {
    if !config.system.is_trained() {
        return "-".to_owned();
    }
    let seen = if config.network().is_slice_wise() { "2D" } else { "3D" };
    match config.features.ensemble_size {
        1 => seen.to_owned(),
        several => format!("{several} x {seen}"),
    }
}

/// What is published of the dataset that the configuration names, if its classes were scored, all of them and no other.
pub fn benchmark(config: &Config, summary: &[ProtocolScores]) -> Option<&'static Benchmark> {
    let classes = summary.iter().flat_map(|scores| &scores.classes).map(|class| class.class.as_str());
    published::benchmark(&config.data.benchmark).filter(|benchmark| benchmark.is_of(classes))
}

/// What others report for the system that this one repeats, under this very protocol and setting.
fn published(system: &System, protocol: Protocol) -> Option<&'static Published> {
    let System { config, setups, summary, .. } = system;
    benchmark(config, summary)?.find(&config.published, setups[&protocol].setting, protocol)
}

/// The page that shows the systems beside each other.
pub fn page(args: &cli::Eval, systems: &[System], comparisons: &[Comparison], overview: table::Table) -> Page {
    let overview = HtmlTable::new(
        "All systems",
        overview,
        "Dice in per cent on the scans' own grids. A published figure stands beside its own protocol: EP1 of a 2D method \
         gives away the query's range of slices and annotates three slices of the support; a 3D support is annotated \
         throughout unless the column says otherwise.",
    );
    let compared = comparisons.iter().map(|comparison| {
        let [a, b] = comparison.runs.each_ref().map(|run| run.name.as_str());
        HtmlTable::new(format!("{a} against {b}"), comparison.table(), comparison.note())
    });
    let by_class = systems.iter().flat_map(|system| {
        system.summary.iter().map(|scores| {
            let caption = format!("{}, protocol {}", system.name, scores.protocol.name());
            HtmlTable::new(caption, table::by_class(scores), scores.signature.clone())
        })
    });
    let runs: String =
        systems.iter().flat_map(|system| &system.runs).map(|run| format!(" --run {}", run.display())).collect();
    Page {
        title: "ssl3d: comparison of systems".to_owned(),
        lead: format!("{} systems, scored on the same folds of one dataset.", systems.len()),
        cards: vec![],
        tables: std::iter::once(overview).chain(compared).chain(by_class).collect(),
        figures: vec![],
        commands: vec![format!("ssl3d eval{runs} --data {} --out {}", args.data.display(), args.out.display())],
        footer: format!("ssl3d {}", env!("CARGO_PKG_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::eval::summarise;
    use crate::config;
    use crate::report::scores::{Setup, Space, Supports, Weights};
    use crate::report::{Row, Setting};
    use std::collections::BTreeMap;

    const CHAOS: &[&str] = &["liver", "right_kidney", "left_kidney", "spleen"];

    /// A system that scored these classes under EP1 in Setting 2.
    fn system(overrides: &[&str], classes: &[&str]) -> System {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let config = config::load(None, &overrides).unwrap();
        let row = |class: &&str| Row {
            query: "1".to_owned(),
            support: "2".to_owned(),
            fold: 0,
            seed: 0,
            class: (*class).to_owned(),
            protocol: Protocol::Ep1,
            dice: Some(0.5),
            predicted_ml: 1.0,
            true_ml: 1.0,
            hd95_mm: None,
            assd_mm: None,
            nsd: None,
            run: "run".to_owned(),
        };
        let rows: Vec<Row> = classes.iter().map(row).collect();
        let setup = Setup {
            space: Space::Native,
            folds: 5,
            fold: "0".to_owned(),
            setting: Setting::Two,
            support: Supports::Next,
            annotation: "3 slices".to_owned(),
            weights: Weights::Final,
            seeds: vec![0],
        };
        let setups = BTreeMap::from([(Protocol::Ep1, setup)]);
        let summary = summarise(&rows, &[], &setups);
        System { name: config.name.clone(), config, runs: vec![], rows, alone: vec![], setups, summary }
    }

    #[test]
    fn a_published_figure_is_found_by_the_keys_and_never_by_the_name() {
        let (of_chaos, repeats) = ("data.benchmark=chaos-t2-spir", "published=SE-Net");
        for (overrides, classes, expected) in [
            (&[of_chaos, repeats, "name=mine"][..], CHAOS, Some(50.66)),
            (&[of_chaos, "name=SE-Net"], CHAOS, None),
            (&[repeats, "name=SE-Net"], CHAOS, None),
            (&[of_chaos, repeats, "name=SE-Net"], &["lv_bp", "lv_myo", "rv"], None),
            (&[of_chaos, repeats, "name=SE-Net"], &CHAOS[..3], None),
            (&[of_chaos, "published=3D SSL-ALPNet"], CHAOS, None), // that one is of the whole volume, in Setting 1
        ] {
            let found = published(&system(overrides, classes), Protocol::Ep1).map(|row| row.mean);
            assert_eq!(found, expected, "{overrides:?} {classes:?}");
        }
    }

    #[test]
    fn what_a_network_sees_is_that_of_the_configuration() {
        let sliced = "features.pooling=[[1, 2, 2], [1, 2, 2], [1, 2, 2]]";
        for (overrides, expected) in [
            (&[][..], "3D"),
            (&["features.ensemble_size=2"], "2 x 3D"),
            (&["features.architecture=unet-2d", sliced], "2D"),
            (&["features.architecture=unet-2d", sliced, "features.ensemble_size=3"], "3 x 2D"),
            (&["system=se-net"], "2D"),
            (&["system=mask-copy"], "-"),
        ] {
            assert_eq!(network(&system(overrides, CHAOS).config), expected, "{overrides:?}");
        }
    }
}
