//! Several runs beside each other: seeds of one system together, each system in one line beside its published figure,
//! and the others compared with the first, query by query.

use super::overview::{lines, page};
use super::{Evaluation, Task, evaluate, refuse_existing, summarise, write_rows};
use crate::artifact;
use crate::cli::{self, Folds};
use crate::commands::Resources;
use crate::commands::progress::{note, print};
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::metrics::Protocol;
use crate::report::Row;
use crate::report::compare::{Comparison, compare};
use crate::report::html::render;
use crate::report::scores::{ProtocolScores, Setup};
use crate::report::table;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A configuration with all its seeds.
pub struct System {
    /// What it calls itself.
    pub name: String,
    /// Its configuration, with seed 0.
    pub config: Config,
    /// Folders of its runs, one a seed.
    pub runs: Vec<PathBuf>,
    /// Every class of every query.
    pub rows: Vec<Row>,
    /// The same without any scan beside support and query.
    pub alone: Vec<Row>,
    /// How each protocol was scored.
    pub setups: BTreeMap<Protocol, Setup>,
    /// Averages.
    pub summary: Vec<ProtocolScores>,
}

/// Scores the runs, and writes what came out.
///
/// # Errors
/// As [`evaluate`]; there is an evaluation already; a run is named twice; a file cannot be written.
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
    print(&format!("{}\n", overview.to_text()));
    let comparisons = comparisons(&systems)?;
    if let [comparison] = comparisons.as_slice() {
        print(&format!("{}\n{}\n", comparison.note(), comparison.table().to_text()));
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
        print(&format!("{}\n{}\n", protocol.signature, table::by_class(protocol).to_text()));
    }
    if let Some((_, table)) = evaluation.beside_published() {
        print(&format!("{}\n", table.to_text()));
    }
    note(&format!("scores.csv, summary.json and report.html are in {}", task.flags.out.display()));
    Ok(())
}

/// To the system that has the same configuration but for its seed, or as a new one.
fn add(systems: &mut Vec<System>, run: &Path, evaluation: Evaluation) -> Result<()> {
    let Evaluation { mut config, rows, alone, setups, summary, .. } = evaluation;
    let seed = config.training.seed;
    config.training.seed = 0;
    let fold = |setups: &BTreeMap<Protocol, Setup>| setups.values().next().map(|setup| setup.fold.clone());
    let same = |system: &&mut System| system.config == config && fold(&system.setups) == fold(&setups);
    let Some(system) = systems.iter_mut().find(same) else {
        let (name, runs) = (config.name.clone(), vec![run.to_owned()]);
        systems.push(System { name, config, runs, rows, alone, setups, summary });
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
    system.alone.extend(alone);
    system.runs.push(run.to_owned());
    system.summary = summarise(&system.rows, &system.alone, &system.setups);
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
        for row in system.rows.iter_mut().chain(&mut system.alone) {
            row.run.clone_from(&system.name);
        }
    }
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
    let alone: Vec<Row> = systems.iter().flat_map(|system| system.alone.iter().cloned()).collect();
    write_rows(&args.out, &rows, &alone)?;
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
