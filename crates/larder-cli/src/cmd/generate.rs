//! `larder man` and `larder completions`: made from the table that parses the command line.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::Roff;

use crate::args::command;
use crate::failure::{FOUND, Failure, Outcome};
use crate::output::print_bytes;

/// Prints completions for a shell of this name.
pub(crate) fn completions(shell: &str) -> Outcome {
    let shell: Shell = shell.parse().map_err(|_| Failure::usage("completions are for bash, zsh and fish"))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "larder", &mut script);
    print_bytes(&script)?;
    Ok(FOUND)
}

/// Prints one manual page for the command and all commands below it.
pub(crate) fn man() -> Outcome {
    let mut root = command();
    root.build();
    let mut page = Vec::new();
    render(&root, &mut page).map_err(|error| Failure::io("render the manual page", &error))?;
    print_bytes(&page)?;
    Ok(FOUND)
}

fn render(root: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(root.clone()).section("1");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("larder {}", command.get_name());
        let mut heading = Roff::new();
        heading.control("SH", [name.to_uppercase().as_str()]);
        heading.to_writer(page)?;
        // The sections of a command stand below its heading, not beside it.
        let man = Man::new(command.clone().display_name(name));
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        man.render_extra_section(&mut sections)?;
        page.extend(String::from_utf8_lossy(&sections).replace("\n.SH ", "\n.SS ").into_bytes());
    }
    man.render_extra_section(page)?;
    man.render_version_section(page)
}
