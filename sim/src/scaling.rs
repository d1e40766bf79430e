//! `antler-sim scale`: runs scale scenarios and says how it went.

use crate::suite::{SuiteError, io, stem};
use antler_sim::scale::spec::{self, ScalePlan};
use antler_sim::scale::{self, ScaleOptions, ScaleReport};
use clap::Args;
use std::path::{Path, PathBuf};

/// What is run, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct Scaling {
    /// The scenarios.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object per scenario instead of text.
    #[arg(long)]
    json: bool,
    /// Writes a page about each run into this folder.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// `scale`: the exit code, that of the gravest failure.
pub(crate) fn run(scaling: &Scaling) -> Result<u8, SuiteError> {
    let plans = scaling.files.iter().map(|path| {
        let scenario = spec::load(path)?;
        let shown = path.display().to_string();
        let plan = ScalePlan::draw(&scenario, scaling.seed);
        let plan = plan.map_err(|error| SuiteError::File(shown.clone(), error))?;
        Ok((shown, plan))
    });
    let plans: Vec<(String, ScalePlan)> = plans.collect::<Result<_, SuiteError>>()?;
    if let Some(folder) = &scaling.report {
        std::fs::create_dir_all(folder).map_err(|error| io(folder, &error))?;
    }
    let mut code = 0;
    for (path, plan) in plans {
        if !scaling.json {
            println!("{path} {}", plan.summary());
        }
        let report = scale::run(&plan, ScaleOptions::default());
        match scaling.json {
            true => println!("{}", report.object(&path)),
            false => println!("{}", report.lines()),
        }
        if let Some(folder) = &scaling.report {
            write_page(folder, &path, &report)?;
        }
        code = crate::report::graver(code, &report.verdict);
    }
    Ok(code)
}

fn write_page(folder: &Path, path: &str, report: &ScaleReport) -> Result<(), SuiteError> {
    let name = format!("{}-{}.html", stem(path), report.plan.seed);
    let file = folder.join(name);
    std::fs::write(&file, scale::page(path, report)).map_err(|error| io(&file, &error))
}
