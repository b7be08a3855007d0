//! Running a GStreamer pipeline to its end.

use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::convert;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::note;
use crate::signals;

/// How long an end of the stream may take to run through after a signal.
const DRAIN: Duration = Duration::from_secs(2);

/// The name of the message by which a signal is told to the loop.
const END: &str = "pagecast-end";

/// Makes GStreamer ready, with our elements.
pub(crate) fn init() -> Result<(), Failure> {
    convert::init()?;
    gstpagecast::plugin_register_static()
        .map_err(|error| Failure::failed(format_args!("our elements cannot be registered: {error}")))
}

/// Makes a pipeline of words as a shell hands them over, or of one word that is all of it.
pub(crate) fn parse(words: &[String]) -> Result<gst::Pipeline, Failure> {
    let flags = gst::ParseFlags::FATAL_ERRORS | gst::ParseFlags::PLACE_IN_BIN;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let parsed = gst::parse::launchv_full(&words, None, flags);
    let element = parsed.map_err(|error| Failure::usage(format_args!("the pipeline: {error}")))?;
    match element.downcast::<gst::Pipeline>() {
        Ok(pipeline) => Ok(pipeline),
        Err(element) => {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).map_err(Failure::failed)?;
            Ok(pipeline)
        }
    }
}

/// A user's pipeline as words: one word may be all of it, in quotes.
pub(crate) fn words(pipeline: &[String]) -> Result<Vec<String>, Failure> {
    match pipeline {
        [all] if all.contains(char::is_whitespace) => split(all),
        words => Ok(words.to_vec()),
    }
}

/// Splits at white space outside of quotes; the quotes go, as in a shell.
fn split(text: &str) -> Result<Vec<String>, Failure> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Failure::usage("the pipeline: a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// The elements that a factory made, wherever they are.
pub(crate) fn made_by(pipeline: &gst::Pipeline, factory: &str) -> Vec<gst::Element> {
    let is_of = |element: &gst::Element| element.factory().is_some_and(|made_by| made_by.name() == factory);
    pipeline.iterate_recurse().into_iter().filter_map(Result::ok).filter(is_of).collect()
}

/// Sets a property as gst-launch-1.0 would.
pub(crate) fn set(element: &gst::Element, name: &str, value: impl ToString) -> Result<(), Failure> {
    if element.find_property(name).is_none() {
        return Err(Failure::usage(format_args!("{} has no property {name}", element.name())));
    }
    element.set_property_from_str(name, &value.to_string());
    Ok(())
}

/// Lets a [`Runner`] end its stream and then itself.
pub(crate) fn ask_to_end(pipeline: &gst::Pipeline) {
    if let Some(bus) = pipeline.bus() {
        let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty(END)));
    }
}

/// A running pipeline's message loop.
pub(crate) struct Runner {
    pipeline: gst::Pipeline,
    /// Begin again at the end.
    pub(crate) repeat: bool,
    /// Called between messages; an error ends the pipeline. At least this often.
    pub(crate) watch: Option<(Duration, Watch)>,
    /// Called once when the pipeline plays.
    pub(crate) playing: Option<Box<dyn FnOnce()>>,
    /// Called when it has played, before it stops.
    pub(crate) ended: Option<Box<dyn FnOnce()>>,
    /// The publisher that a source lost: the end of the stream is none of its making.
    lost: Option<String>,
}

/// See [`Runner::watch`].
pub(crate) type Watch = Box<dyn FnMut() -> Result<(), Failure>>;

impl Runner {
    pub(crate) fn new(pipeline: gst::Pipeline) -> Self {
        Self { pipeline, repeat: false, watch: None, playing: None, ended: None, lost: None }
    }

    /// Plays until the end of the stream, an error or a signal.
    pub(crate) fn run(mut self) -> Outcome {
        let bus = self.pipeline.bus().ok_or_else(|| Failure::failed("the pipeline has no bus"))?;
        let theirs = self.pipeline.clone();
        let _registration = signals::on_end(move || ask_to_end(&theirs));
        let first = if self.repeat { gst::State::Paused } else { gst::State::Playing };
        let result = match self.pipeline.set_state(first) {
            Ok(_) => self.listen(&bus),
            // The reason is on the bus.
            Err(error) => Err(bus
                .pop_filtered(&[gst::MessageType::Error])
                .and_then(|message| failure_of(&message))
                .unwrap_or_else(|| Failure::failed(error))),
        };
        if let Some(ended) = self.ended.filter(|_| self.playing.is_none()) {
            ended();
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        result
    }

    fn listen(&mut self, bus: &gst::Bus) -> Outcome {
        let mut deadline = None::<Instant>;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Exit::Ok);
            }
            let pause = self.watch.as_ref().map(|(pause, _)| *pause);
            let wait = [left, pause].into_iter().flatten().min();
            let wait = wait.and_then(|wait| gst::ClockTime::try_from(wait).ok());
            if let Some(message) = bus.timed_pop(wait)
                && let Some(end) = self.handle(&message, &mut deadline)
            {
                return end;
            }
            if let Some((_, watch)) = &mut self.watch {
                watch()?;
            }
        }
    }

    /// What a message means; `Some` if it is the end.
    fn handle(&mut self, message: &gst::Message, deadline: &mut Option<Instant>) -> Option<Outcome> {
        use gst::MessageView;
        match message.view() {
            MessageView::Eos(_) => return Some(self.end()),
            MessageView::Element(own) if own.structure().is_some_and(|s| s.name() == "pagecast-lost") => {
                let uri = own.structure().and_then(|s| s.get("uri").ok());
                self.lost = Some(uri.unwrap_or_default());
            }
            MessageView::Error(_) => return failure_of(message).map(Err),
            MessageView::Warning(warning) => {
                note(format_args!(
                    "warning: {}",
                    text_of(&warning.error(), warning.debug(), is_ours(message))
                ));
            }
            MessageView::Info(info) => note(text_of(&info.error(), info.debug(), is_ours(message))),
            MessageView::Latency(_) => drop(self.pipeline.recalculate_latency()),
            MessageView::ClockLost(_) => {
                let _ = self.pipeline.set_state(gst::State::Paused);
                let _ = self.pipeline.set_state(gst::State::Playing);
            }
            MessageView::Application(own) if own.structure().is_some_and(|s| s.name() == END) => {
                deadline.get_or_insert_with(|| Instant::now() + DRAIN);
                self.repeat = false;
                self.pipeline.send_event(gst::event::Eos::new());
            }
            MessageView::AsyncDone(_) if self.repeat && deadline.is_none() => return self.begin(),
            MessageView::SegmentDone(_) => match self.repeat {
                true => return self.seek(gst::SeekFlags::SEGMENT).err().map(Err),
                false => return Some(Ok(Exit::Ok)),
            },
            MessageView::StateChanged(change) if self.is_playing(message, change) => {
                if let Some(playing) = self.playing.take() {
                    playing();
                }
            }
            _ => {}
        }
        None
    }

    /// What the end of the stream means.
    fn end(&self) -> Outcome {
        match &self.lost {
            None => Ok(Exit::Ok),
            Some(uri) => {
                let message = format!("the publisher of {uri} is gone without an end of the stream");
                Err(Failure::new(Exit::NoPublisher, message))
            }
        }
    }

    fn is_playing(&self, message: &gst::Message, change: &gst::message::StateChanged) -> bool {
        message.src() == Some(self.pipeline.upcast_ref()) && change.current() == gst::State::Playing
    }

    /// Prerolled: from here on the stream ends with segments instead of its end.
    fn begin(&mut self) -> Option<Outcome> {
        if self.pipeline.current_state() == gst::State::Playing {
            return None;
        }
        let begun = self.seek(gst::SeekFlags::SEGMENT | gst::SeekFlags::FLUSH);
        let played = begun
            .and_then(|()| self.pipeline.set_state(gst::State::Playing).map(drop).map_err(Failure::failed));
        played.err().map(Err)
    }

    fn seek(&self, flags: gst::SeekFlags) -> Result<(), Failure> {
        self.pipeline
            .seek_simple(flags, gst::ClockTime::ZERO)
            .map_err(|_| Failure::failed("this file cannot be played again from its start: leave --loop out"))
    }
}

/// What an error on the bus means for us.
fn failure_of(bus_message: &gst::Message) -> Option<Failure> {
    let gst::MessageView::Error(message) = bus_message.view() else { return None };
    let error = message.error();
    let (factory, ours) = (factory_of(bus_message), is_ours(bus_message));
    let kind = error.kind::<gst::ResourceError>();
    let exit = match (factory.as_deref().unwrap_or_default(), kind) {
        ("pagecastsrc", Some(gst::ResourceError::NotFound)) => Exit::NoPublisher,
        ("pagecastsrc", Some(gst::ResourceError::NotAuthorized | gst::ResourceError::NoSpaceLeft)) => {
            Exit::Refused
        }
        ("pagecastsink", Some(gst::ResourceError::OpenWrite)) => Exit::Refused,
        ("pagecastsrc" | "pagecastsink", Some(gst::ResourceError::Settings)) => Exit::Usage,
        _ => Exit::Failed,
    };
    let name = message.src().map(|source| source.name().to_string()).unwrap_or_default();
    let text = text_of(&error, message.debug(), ours);
    Some(Failure::new(exit, format_args!("{name}: {text}")))
}

fn factory_of(message: &gst::Message) -> Option<String> {
    let element = message.src().and_then(|source| source.downcast_ref::<gst::Element>())?;
    Some(element.factory()?.name().to_string())
}

fn is_ours(message: &gst::Message) -> bool {
    factory_of(message).is_some_and(|factory| factory.starts_with("pagecast"))
}

/// What is said for people, without where in the source it was said.
fn text_of(error: &gst::glib::Error, debug: Option<gst::glib::GString>, ours: bool) -> String {
    let detail = debug.as_deref().and_then(|debug| debug.split_once('\n')).map(|(_, detail)| detail.trim());
    match detail.filter(|detail| !detail.is_empty()) {
        // Our own elements say everything in the detail, below a sentence of GStreamer's own.
        Some(detail) if ours => detail.to_owned(),
        Some(detail) => format!("{} ({detail})", error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_split_as_a_shell_does() {
        let split = |text: &str| words(&[text.to_owned()]).unwrap();
        assert_eq!(split("a ! b"), ["a", "!", "b"]);
        assert_eq!(
            split(r#"filesrc location="a b" ! x caps='c, d' ''"#),
            ["filesrc", "location=a b", "!", "x", "caps=c, d", ""]
        );
        assert_eq!(split(r"a\ b c"), ["a b", "c"]);
        assert!(words(&["a 'b".to_owned()]).is_err());
        assert_eq!(words(&["a b".to_owned(), "c".to_owned()]).unwrap(), ["a b", "c"]);
    }
}
