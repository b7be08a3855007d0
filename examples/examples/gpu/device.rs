//! A GPU by EGL, without a window: the one behind a DRM node, or Mesa's software device.

use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;

use khronos_egl as egl;
use libloading::Library;
use pagecast::Picture;

type Egl = egl::DynamicInstance<egl::EGL1_5>;
type Error = Box<dyn std::error::Error>;

// Of EGL's registry.
const PLATFORM_GBM: egl::Enum = 0x31D7;
const PLATFORM_DEVICE: egl::Enum = 0x313F;
const LINUX_DMA_BUF: egl::Enum = 0x3270;
const LINUX_DRM_FOURCC: egl::Attrib = 0x3271;
/// For each plane: descriptor, offset, stride, low and high half of the modifier.
const PLANES: [[egl::Attrib; 5]; 4] = [
    [0x3272, 0x3273, 0x3274, 0x3443, 0x3444],
    [0x3275, 0x3276, 0x3277, 0x3445, 0x3446],
    [0x3278, 0x3279, 0x327A, 0x3447, 0x3448],
    [0x3440, 0x3441, 0x3442, 0x3449, 0x344A],
];

/// A device with a context that is current in this thread.
pub(crate) struct Device {
    egl: Rc<Egl>,
    display: egl::Display,
    has_modifiers: bool,
    _gbm: Option<Gbm>,
}

/// An imported picture.
pub(crate) struct Image {
    egl: Rc<Egl>,
    display: egl::Display,
    pub(crate) image: egl::Image,
    /// Whether its pixels are in one plane.
    pub(crate) is_plain: bool,
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = self.egl.destroy_image(self.display, self.image);
    }
}

impl Device {
    pub(crate) fn open(node: Option<&Path>) -> Result<Self, Error> {
        // SAFETY: the library is the system's EGL; loading it has no conditions.
        let egl = unsafe { Egl::load_required() }
            .map_err(|error| format!("EGL 1.5 is missing: install libegl1 ({error})"))?;
        let gbm = node.map(Gbm::open).transpose()?;
        let (platform, native) = match &gbm {
            Some(gbm) => (PLATFORM_GBM, gbm.device),
            None => (PLATFORM_DEVICE, software_device(&egl)?),
        };
        // SAFETY: the native display is of that platform, and outlives the device.
        let display = unsafe { egl.get_platform_display(platform, native, &[egl::ATTRIB_NONE]) }?;
        egl.initialize(display)?;
        let extensions = egl.query_string(Some(display), egl::EXTENSIONS)?.to_string_lossy().into_owned();
        let has = |name: &str| extensions.split(' ').any(|extension| extension == name);
        if !has("EGL_EXT_image_dma_buf_import") {
            return Err("this device imports no dma-bufs (it has no EGL_EXT_image_dma_buf_import): give one that \
                does, --device /dev/dri/renderD128, or use a newer Mesa (the software device of 22.3 does not, that of \
                25.0 does)"
                .into());
        }
        egl.bind_api(egl::OPENGL_ES_API)?;
        // SAFETY: no configuration is what a context without a surface has (EGL_KHR_no_config_context).
        let config = unsafe { egl::Config::from_ptr(std::ptr::null_mut()) };
        let version = [egl::CONTEXT_CLIENT_VERSION, 2, egl::NONE];
        let context = egl.create_context(display, config, None, &version)?;
        egl.make_current(display, None, None, Some(context))?;
        let has_modifiers = has("EGL_EXT_image_dma_buf_import_modifiers");
        Ok(Self { egl: Rc::new(egl), display, has_modifiers, _gbm: gbm })
    }

    /// Where a function of OpenGL ES or of an extension is; null if nowhere.
    pub(crate) fn function(&self, name: &str) -> *const c_void {
        self.egl.get_proc_address(name).map_or(std::ptr::null(), |function| function as *const c_void)
    }

    /// Imports the planes of a picture, as they lie.
    pub(crate) fn import(&self, picture: &Picture<'_>) -> Result<Image, Error> {
        let modifier = u64::from(picture.modifier);
        if modifier != 0 && !self.has_modifiers {
            return Err(
                format!("this device knows no modifiers, and the picture has {modifier:#018x}").into()
            );
        }
        let mut said = vec![egl::WIDTH as egl::Attrib, picture.width as egl::Attrib];
        said.extend([egl::HEIGHT as egl::Attrib, picture.height as egl::Attrib]);
        said.extend([LINUX_DRM_FOURCC, picture.fourcc as egl::Attrib]);
        for (names, plane) in PLANES.iter().zip(&picture.planes) {
            let [fd, offset, pitch, low, high] = *names;
            said.extend([fd, plane.fd.as_raw_fd() as egl::Attrib]);
            said.extend([offset, egl::Attrib::try_from(plane.offset)?, pitch, plane.stride as egl::Attrib]);
            if self.has_modifiers {
                said.extend([low, modifier as u32 as egl::Attrib, high, (modifier >> 32) as egl::Attrib]);
            }
        }
        said.push(egl::ATTRIB_NONE);
        // SAFETY: an import has neither a context nor a client buffer.
        let (none, nothing) = unsafe {
            (egl::Context::from_ptr(egl::NO_CONTEXT), egl::ClientBuffer::from_ptr(std::ptr::null_mut()))
        };
        let image = self.egl.create_image(self.display, none, LINUX_DMA_BUF, nothing, &said);
        let image = image.map_err(|error| {
            let (width, height, fourcc) = (picture.width, picture.height, picture.fourcc);
            format!("this device does not import {fourcc}:{modifier:#018x} of {width}x{height}: {error}")
        })?;
        let is_plain = picture.planes.len() == 1;
        Ok(Image { egl: self.egl.clone(), display: self.display, image, is_plain })
    }
}

/// Mesa's device that draws with the CPU.
fn software_device(egl: &Egl) -> Result<*mut c_void, Error> {
    type Any = extern "system" fn();
    type Query = extern "system" fn(egl::Int, *mut *mut c_void, *mut egl::Int) -> egl::Boolean;
    type Describe = extern "system" fn(*mut c_void, egl::Int) -> *const c_char;
    let missing = "this EGL lists no devices: give one, --device /dev/dri/renderD128";
    let query = egl.get_proc_address("eglQueryDevicesEXT").ok_or(missing)?;
    let describe = egl.get_proc_address("eglQueryDeviceStringEXT").ok_or(missing)?;
    // SAFETY: these are the types of EGL_EXT_device_enumeration and EGL_EXT_device_query.
    let (query, describe) =
        unsafe { (std::mem::transmute::<Any, Query>(query), std::mem::transmute::<Any, Describe>(describe)) };
    let (mut devices, mut count) = ([std::ptr::null_mut(); 32], 0);
    if query(devices.len() as egl::Int, devices.as_mut_ptr(), &mut count) != egl::TRUE {
        return Err(missing.into());
    }
    let is_software = |device: &&*mut c_void| {
        let said = describe(**device, egl::EXTENSIONS);
        // SAFETY: EGL gives null or a text that stays.
        !said.is_null()
            && unsafe { CStr::from_ptr(said) }.to_string_lossy().contains("EGL_MESA_device_software")
    };
    let found = devices[..usize::try_from(count)?].iter().find(is_software).copied();
    Ok(found.ok_or("EGL has no software device: give one, --device /dev/dri/renderD128")?)
}

/// A DRM device as EGL takes it.
struct Gbm {
    device: *mut c_void,
    library: Library,
    _node: File,
}

impl Gbm {
    fn open(path: &Path) -> Result<Self, Error> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let node = File::options().read(true).write(true).open(path).map_err(|error| named(&error))?;
        // SAFETY: the library is the system's GBM; loading it has no conditions.
        let library = unsafe { Library::new("libgbm.so.1") };
        let library = library.map_err(|error| format!("GBM is missing: install libgbm1 ({error})"))?;
        // SAFETY: that is its type in gbm.h; the descriptor is kept as long as the device.
        let device = unsafe {
            let create = library.get::<unsafe extern "C" fn(i32) -> *mut c_void>(b"gbm_create_device\0")?;
            create(node.as_raw_fd())
        };
        if device.is_null() {
            return Err(named(&"there is no driver for it in Mesa").into());
        }
        Ok(Self { device, library, _node: node })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.egl.make_current(self.display, None, None, None);
        let _ = self.egl.terminate(self.display);
    }
}

impl Drop for Gbm {
    fn drop(&mut self) {
        // SAFETY: that is its type in gbm.h; the display that used the device was terminated.
        unsafe {
            if let Ok(destroy) =
                self.library.get::<unsafe extern "C" fn(*mut c_void)>(b"gbm_device_destroy\0")
            {
                destroy(self.device);
            }
        }
    }
}
