//! Several runs beside each other: seeds of one system together, each system in one line beside its published figure,
//! and the others compared with the first, query by query.

use super::{Evaluation, Task, evaluate, refuse_existing, summarise};
use crate::artifact;
use crate::cli::{self, Folds};
use crate::commands::Resources;
use crate::commands::progress::note;
use crate::config::{self, Config};
use crate::episode::Source;
use crate::error::{Error, Result};
use crate::metrics::Protocol;
use crate::network::System as Kind;
use crate::prototypes::Method;
use crate::report::compare::{Comparison, compare};
use crate::report::html::{HtmlTable, Page, render};
use crate::report::published::{self, Benchmark, Published};
use crate::report::scores::{ProtocolScores, Setup};
use crate::report::table;
use crate::report::{Row, scores};
use crate::training;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A configuration with all its seeds.
struct System {
    name: String,
    config: Config,
    runs: Vec<PathBuf>,
    rows: Vec<Row>,
    setups: BTreeMap<Protocol, Setup>,
    summary: Vec<ProtocolScores>,
}

/// Scores the runs, and writes what came out.
pub fn run(args: &cli::Eval, resources: Resources) -> Result<()> {
    refuse_existing(&args.out, args.force)?;
    let task = Task::of(args, resources);
    if args.run.len() == 1 {
        return run_one(&task);
    }
    let mut systems: Vec<System> = Vec::new();
    let (floors, networks): (Vec<&PathBuf>, Vec<&PathBuf>) =
        args.run.iter().partition(|run| is_floor(run, &args.overrides.set));
    for run in &networks {
        add(&mut systems, run, score(&task, run, args.fold.clone())?)?;
    }
    // A floor has every fold; it is compared on those of the networks.
    let scored: BTreeSet<usize> = systems.iter().flat_map(|system| system.rows.iter().map(|row| row.fold)).collect();
    let fold = args.fold.clone().or_else(|| (!scored.is_empty()).then_some(Folds::These(scored)));
    for run in &floors {
        add(&mut systems, run, score(&task, run, fold.clone())?)?;
    }
    name_apart(&mut systems);
    let lines = lines(&systems);
    let overview = table::systems(&lines);
    println!("{}", overview.to_text());
    let comparisons = comparisons(&systems)?;
    if let [comparison] = comparisons.as_slice() {
        println!("{}\n{}", comparison.note(), comparison.table().to_text());
    }
    write(args, &systems, &comparisons, overview)?;
    note(&format!("scores.csv, summary.json and report.html are in {}", args.out.display()));
    Ok(())
}

fn is_floor(run: &Path, overrides: &[String]) -> bool {
    let config = std::fs::read_to_string(run.join("config.toml")).ok();
    let config = config.and_then(|text| config::with_overrides(&text, "", overrides).ok()); // a fault is told later
    config.is_some_and(|config| !config.system.is_trained())
}

fn score(task: &Task, run: &Path, fold: Option<Folds>) -> Result<Evaluation> {
    note(&format!("scoring {}", run.display()));
    evaluate(&Task { run, fold, ..task.clone() })
}

fn run_one(task: &Task) -> Result<()> {
    let evaluation = evaluate(task)?;
    evaluation.write(task)?;
    for protocol in &evaluation.summary {
        println!("{}\n{}", protocol.signature, table::by_class(protocol).to_text());
    }
    if let Some((_, table)) = evaluation.beside_published() {
        println!("{}", table.to_text());
    }
    note(&format!("scores.csv, summary.json and report.html are in {}", task.flags.out.display()));
    Ok(())
}

/// To the system that has the same configuration but for its seed, or as a new one.
fn add(systems: &mut Vec<System>, run: &Path, evaluation: Evaluation) -> Result<()> {
    let Evaluation { mut config, rows, setups, summary, .. } = evaluation;
    let seed = config.training.seed;
    config.training.seed = 0;
    let fold = |setups: &BTreeMap<Protocol, Setup>| setups.values().next().map(|setup| setup.fold.clone());
    let same = |system: &&mut System| system.config == config && fold(&system.setups) == fold(&setups);
    let Some(system) = systems.iter_mut().find(same) else {
        let (name, runs) = (config.name.clone(), vec![run.to_owned()]);
        systems.push(System { name, config, runs, rows, setups, summary });
        return Ok(());
    };
    if system.rows.iter().any(|row| row.seed == seed) {
        let found = format!("the same configuration and seed as {}", system.runs[0].display());
        return Err(Error::file(run, "another system, or another seed", found, "name each run once"));
    }
    for setup in system.setups.values_mut() {
        setup.seeds.push(seed);
        setup.seeds.sort_unstable();
    }
    system.rows.extend(rows);
    system.runs.push(run.to_owned());
    system.summary = summarise(&system.rows, &system.setups);
    Ok(())
}

/// Different systems that call themselves the same carry the name of their folder, too; rows carry the system's name.
fn name_apart(systems: &mut [System]) {
    let names: Vec<String> = systems.iter().map(|system| system.name.clone()).collect();
    for system in systems.iter_mut() {
        if names.iter().filter(|name| **name == system.name).count() > 1 {
            let folder = system.runs[0].file_name().unwrap_or(system.runs[0].as_os_str()).to_string_lossy();
            system.name = format!("{} ({folder})", system.name);
        }
        for row in &mut system.rows {
            row.run.clone_from(&system.name);
        }
    }
}

fn lines<'a>(systems: &'a [System]) -> Vec<table::System<'a>> {
    let of_system = |system: &'a System| {
        let System { name, config, setups, summary, .. } = system;
        let is_floor = !config.system.is_trained();
        let is_learned = !is_floor && config.supervision.source != Source::Untrained;
        summary.iter().map(move |scores| table::System {
            name,
            network: network(config),
            learns_from: match config.supervision.source {
                _ if !is_learned => "-",
                Source::Organs if config.training.initial_weights != training::RANDOM => "supervoxels, then organs",
                Source::Organs => "organs",
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
pub(super) fn network(config: &Config) -> String {
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
pub(super) fn benchmark(config: &Config, summary: &[ProtocolScores]) -> Option<&'static Benchmark> {
    let classes = summary.iter().flat_map(|scores| &scores.classes).map(|class| class.class.as_str());
    published::benchmark(&config.data.benchmark).filter(|benchmark| benchmark.is_of(classes))
}

/// What others report for the system that this one repeats, under this very protocol and setting.
fn published(system: &System, protocol: Protocol) -> Option<&'static Published> {
    let System { config, setups, summary, .. } = system;
    benchmark(config, summary)?.find(&config.published, setups[&protocol].setting, protocol)
}

/// The first system against each of the others; those that were scored on other queries are passed over with a word.
fn comparisons(systems: &[System]) -> Result<Vec<Comparison>> {
    let [first, others @ ..] = systems else { return Ok(vec![]) };
    let mut comparisons = Vec::new();
    for other in others {
        match compare(&first.rows, &other.rows, 0) {
            Ok(comparison) => comparisons.push(comparison),
            Err(reason) => note(&format!("not compared: {reason}")),
        }
    }
    Ok(comparisons)
}

fn write(args: &cli::Eval, systems: &[System], comparisons: &[Comparison], overview: table::Table) -> Result<()> {
    artifact::create_folder(&args.out)?;
    let rows: Vec<Row> = systems.iter().flat_map(|system| system.rows.iter().cloned()).collect();
    scores::write_csv(&args.out.join("scores.csv"), &rows)?;
    let summary = serde_json::json!({
        "systems": systems.iter().map(|system| serde_json::json!({
            "name": system.name,
            "runs": system.runs,
            "setups": system.setups.values().collect::<Vec<_>>(),
            "protocols": system.summary,
        })).collect::<Vec<_>>(),
        "comparisons": comparisons,
    });
    let text = serde_json::to_string_pretty(&summary).expect("text and numbers only") + "\n";
    artifact::write_bytes(&args.out.join("summary.json"), text.as_bytes())?;
    artifact::write_bytes(&args.out.join("report.html"), render(&page(args, systems, comparisons, overview)).as_bytes())
}

fn page(args: &cli::Eval, systems: &[System], comparisons: &[Comparison], overview: table::Table) -> Page {
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
    use crate::report::Setting;
    use crate::report::scores::{Space, Supports, Weights};

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
        let summary = summarise(&rows, &setups);
        System { name: config.name.clone(), config, runs: vec![], rows, setups, summary }
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
