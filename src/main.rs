//! `doorstep`: see [`doorstep::cli`] for the command line.

use std::process::exit;

use doorstep::cli::{self, Command, EXIT_CONFIG};
use doorstep::{app, config, node};

fn main() {
    exit(match cli::parse(std::env::args_os()) {
        Ok(command) => run(command),
        Err(error) if error.exit_code == 0 => {
            cli::print(format_args!("{error}\n"));
            0
        }
        Err(error) => {
            cli::complain(&error);
            error.exit_code
        }
    });
}

fn run(command: Command) -> i32 {
    match command {
        Command::Serve(args) => {
            let words: Vec<_> = std::env::args_os().skip(1).collect();
            or_complain(app::serve(&args, &words))
        }
        Command::Worker(args) => or_complain(app::work(&args)),
        Command::Check { args, corefile } => check(&args, corefile),
        Command::Teardown(args) => teardown(&args),
        Command::Doctor(options) => {
            let (found, status) = doorstep::doctor::run(&options);
            cli::print(found);
            status
        }
        Command::Remedy(order) => app::remedy::run(&order),
        #[cfg(feature = "demo")]
        Command::Demo(command) => demo(command),
        Command::Version => {
            cli::print(format_args!("doorstep-{}\n", env!("CARGO_PKG_VERSION")));
            0
        }
        Command::Plugins => {
            config::directive::served().iter().for_each(|name| cli::print(format_args!("{name}\n")));
            0
        }
    }
}

fn or_complain(status: anyhow::Result<i32>) -> i32 {
    status.unwrap_or_else(|error| {
        cli::complain(format_args!("doorstep: {error:#}"));
        1
    })
}

fn check(args: &cli::Args, corefile: Option<std::path::PathBuf>) -> i32 {
    let options = match corefile {
        Some(file) => args.options_for_check(file),
        None => args.options(),
    };
    match config::load(&options, &config::System) {
        Ok(config) => {
            cli::print(format_args!("{}\n", config::describe(&config)));
            let lint = args.lint(&config);
            let lines = args.warnings.iter().chain(&config.warnings).chain(&config.omitted).chain(&lint);
            lines.for_each(|line| cli::print(format_args!("warning: {line}\n")));
            0
        }
        Err(error) => {
            cli::complain(&error);
            EXIT_CONFIG
        }
    }
}

fn teardown(args: &cli::Args) -> i32 {
    let errors = node::teardown(&args.node());
    errors.iter().for_each(|error| cli::complain(format_args!("doorstep: {error}")));
    i32::from(!errors.is_empty())
}

#[cfg(feature = "demo")]
fn demo(command: cli::Demo) -> i32 {
    use doorstep::demo::{Options, race, run};
    let done = match command {
        cli::Demo::Lab { hold, json, pairs, direct_pairs } => {
            run(Options { hold, json, pairs, direct_pairs, ..Options::default() })
                .map(|report| report.failures().is_empty())
        }
        cli::Demo::Race { race, json } => race::standalone(&race).map(|verdict| {
            match json {
                true => cli::print(format_args!("{}\n", verdict.to_json())),
                false => cli::print(&verdict),
            }
            verdict.tally.lost == 0
        }),
    };
    or_complain(done.map(|well| i32::from(!well)).map_err(Into::into))
}
