//! Draws an imported picture into one of the GPU's own, and reads that.

use std::ffi::c_void;

use glow::HasContext;

use crate::device::{Device, Image};

type Error = Box<dyn std::error::Error>;

/// `GL_TEXTURE_EXTERNAL_OES`: a texture of any format that can be imported, as of a camera.
const EXTERNAL: u32 = 0x8D65;

const VERTEX: &str = "attribute vec2 corner; varying vec2 at;
    void main() { at = corner; gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0); }";
const FRAGMENT: &str = "#extension GL_OES_EGL_image_external : require
    precision highp float; varying vec2 at; uniform samplerExternalOES picture;
    void main() { gl_FragColor = vec4(texture2D(picture, at).rgb, 1.0); }";

/// `glEGLImageTargetTexture2DOES`.
type Target = extern "system" fn(u32, *const c_void);

/// The GPU's side.
pub(crate) struct Drawing {
    gl: glow::Context,
    target: Target,
    texture: glow::Texture,
    own: Option<(u32, u32, glow::Texture)>,
}

impl Drawing {
    pub(crate) fn new(device: &Device) -> Result<Self, Error> {
        let target = device.function("glEGLImageTargetTexture2DOES");
        if target.is_null() {
            return Err("this OpenGL ES draws with no imports (GL_OES_EGL_image is missing)".into());
        }
        // SAFETY: that is its type in GL_OES_EGL_image, and it is not null.
        let target = unsafe { std::mem::transmute::<*const c_void, Target>(target) };
        // SAFETY: the device's context is current in this thread, as for all calls here.
        unsafe {
            let gl = glow::Context::from_loader_function(|name| device.function(name));
            let program = program(&gl)?;
            gl.use_program(Some(program));
            let corners: [f32; 8] = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
            let bytes: Vec<u8> = corners.iter().flat_map(|corner| corner.to_ne_bytes()).collect();
            gl.bind_buffer(glow::ARRAY_BUFFER, Some(gl.create_buffer()?));
            gl.buffer_data_u8_slice(glow::ARRAY_BUFFER, &bytes, glow::STATIC_DRAW);
            gl.enable_vertex_attrib_array(0);
            gl.vertex_attrib_pointer_f32(0, 2, glow::FLOAT, false, 0, 0);
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(gl.create_framebuffer()?));
            let texture = gl.create_texture()?;
            Ok(Self { gl, target, texture, own: None })
        }
    }

    pub(crate) fn renderer(&self) -> String {
        // SAFETY: the context is current.
        unsafe {
            let (renderer, version) = (glow::RENDERER, glow::VERSION);
            format!("{}, {}", self.gl.get_parameter_string(renderer), self.gl.get_parameter_string(version))
        }
    }

    /// Draws, and returns when the GPU is done. What is `new` is looked at first: there are devices that import what
    /// they cannot read, and fail much later.
    pub(crate) fn draw(&mut self, image: &Image, new: bool, width: u32, height: u32) -> Result<(), Error> {
        if new && image.is_plain {
            self.look_at(image)?;
        }
        self.size(width, height)?;
        // SAFETY: the context is current, and the image lives.
        unsafe {
            self.gl.bind_texture(EXTERNAL, Some(self.texture));
            (self.target)(EXTERNAL, image.image.as_ptr());
            self.gl.tex_parameter_i32(EXTERNAL, glow::TEXTURE_MIN_FILTER, glow::NEAREST as i32);
            self.gl.tex_parameter_i32(EXTERNAL, glow::TEXTURE_MAG_FILTER, glow::NEAREST as i32);
            self.gl.draw_arrays(glow::TRIANGLE_STRIP, 0, 4);
            self.gl.finish();
        }
        self.check("drawing")
    }

    /// Reads one pixel of an import.
    fn look_at(&self, image: &Image) -> Result<(), Error> {
        // SAFETY: the context is current, the image lives, and there is room for one pixel.
        unsafe {
            let texture = self.gl.create_texture()?;
            let seen = self.gl.create_framebuffer()?;
            let before = self.gl.get_parameter_framebuffer(glow::FRAMEBUFFER_BINDING);
            self.gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            (self.target)(glow::TEXTURE_2D, image.image.as_ptr());
            self.gl.bind_framebuffer(glow::FRAMEBUFFER, Some(seen));
            self.attach(texture);
            let mut pixel = [0; 4];
            let into = glow::PixelPackData::Slice(Some(&mut pixel));
            self.gl.read_pixels(0, 0, 1, 1, glow::RGBA, glow::UNSIGNED_BYTE, into);
            self.gl.bind_framebuffer(glow::FRAMEBUFFER, before);
            self.gl.delete_framebuffer(seen);
            self.gl.delete_texture(texture);
        }
        self.check("this device imports these pages, but cannot read them: take pages of its own")
    }

    /// The picture that is drawn into.
    fn size(&mut self, width: u32, height: u32) -> Result<(), Error> {
        if self.own.is_some_and(|(w, h, _)| (w, h) == (width, height)) {
            return Ok(());
        }
        let (w, h) = (i32::try_from(width)?, i32::try_from(height)?);
        // SAFETY: the context is current.
        unsafe {
            let texture = self.gl.create_texture()?;
            self.gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            let none = glow::PixelUnpackData::Slice(None);
            let rgba = glow::RGBA;
            self.gl.tex_image_2d(glow::TEXTURE_2D, 0, rgba as i32, w, h, 0, rgba, glow::UNSIGNED_BYTE, none);
            self.attach(texture);
            self.gl.viewport(0, 0, w, h);
            if let Some((.., old)) = self.own.replace((width, height, texture)) {
                self.gl.delete_texture(old);
            }
        }
        self.check("making room")
    }

    fn attach(&self, texture: glow::Texture) {
        let (buffer, color) = (glow::FRAMEBUFFER, glow::COLOR_ATTACHMENT0);
        // SAFETY: the context is current.
        unsafe { self.gl.framebuffer_texture_2d(buffer, color, glow::TEXTURE_2D, Some(texture), 0) };
    }

    /// What was drawn last: width, height, and red, green and blue of each pixel.
    pub(crate) fn pixels(&self) -> Result<(u32, u32, Vec<u8>), Error> {
        let (width, height, _) = self.own.ok_or("nothing was drawn")?;
        let mut bytes = vec![0; 4 * width as usize * height as usize];
        let into = glow::PixelPackData::Slice(Some(&mut bytes));
        // SAFETY: the context is current, and there is room for all pixels.
        unsafe {
            let (width, height) = (width as i32, height as i32);
            self.gl.read_pixels(0, 0, width, height, glow::RGBA, glow::UNSIGNED_BYTE, into);
        }
        self.check("reading")?;
        let pixels = bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        Ok((width, height, pixels.collect()))
    }

    fn check(&self, what: &str) -> Result<(), Error> {
        // SAFETY: the context is current.
        match unsafe { self.gl.get_error() } {
            glow::NO_ERROR => Ok(()),
            error => Err(format!("{what} (OpenGL error {error:#x})").into()),
        }
    }
}

/// # Safety
/// The context must be current.
unsafe fn program(gl: &glow::Context) -> Result<glow::Program, Error> {
    // SAFETY: as the caller says.
    unsafe {
        let program = gl.create_program()?;
        for (kind, source) in [(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, FRAGMENT)] {
            let shader = gl.create_shader(kind)?;
            gl.shader_source(shader, source);
            gl.compile_shader(shader);
            if !gl.get_shader_compile_status(shader) {
                return Err(gl.get_shader_info_log(shader).into());
            }
            gl.attach_shader(program, shader);
        }
        gl.bind_attrib_location(program, 0, "corner");
        gl.link_program(program);
        let linked = gl.get_program_link_status(program);
        linked.then_some(program).ok_or_else(|| gl.get_program_info_log(program).into())
    }
}
