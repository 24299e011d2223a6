//! Loads libtorch's CUDA library at run time and lists the GPUs of the NVIDIA driver.

use crate::units;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The libtorch that tch 0.26 is made for; reported where the folder of libtorch has no `build-version` file.
const LIBTORCH_VERSION: &str = "2.13.0";
/// The major CUDA version of this libtorch; drivers of this version or a later one work.
const CUDA_MAJOR: c_int = 13;

/// Whether tensors can live on a GPU.
#[derive(Debug, Clone, PartialEq)]
pub enum CudaStatus {
    /// The driver and libtorch's CUDA library work.
    Available {
        /// The usable GPUs in the order of libtorch's numbers; may be empty for [`super::Request::Cpu`].
        devices: Vec<Gpu>,
    },
    /// No GPU can be used.
    Absent {
        /// Why not, as a clause: "there is no NVIDIA driver (libcuda.so.1) on this machine".
        reason: String,
        /// What the user can do about it.
        remedy: String,
    },
}

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpu {
    /// Name of the model, for instance "NVIDIA H100".
    pub name: String,
    /// Total memory in bytes; None where the driver does not say.
    pub memory_bytes: Option<u64>,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.memory_bytes {
            Some(bytes) => write!(f, "{} ({})", self.name, units::bytes(bytes)),
            None => write!(f, "{} (memory unknown)", self.name),
        }
    }
}

/// The libtorch that this process has loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Libtorch {
    /// Version, for instance "2.13.0".
    pub version: String,
    /// Folder of `libtorch_cpu.so`.
    pub folder: PathBuf,
    /// Whether the folder also holds `libtorch_cuda.so`.
    pub with_cuda: bool,
}

/// Finds the loaded libtorch through `/proc/self/maps`.
pub fn libtorch() -> Libtorch {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let folder = folder_of(&maps, "libtorch_cpu.so").unwrap_or_default();
    let version = std::fs::read_to_string(folder.join("../build-version"))
        .map_or_else(|_| LIBTORCH_VERSION.to_owned(), |text| text.trim().to_owned());
    Libtorch { version, with_cuda: folder.join("libtorch_cuda.so").exists(), folder }
}

/// Opens CUDA on the first call; later calls return the same status.
pub fn cuda_status() -> &'static CudaStatus {
    static STATUS: OnceLock<CudaStatus> = OnceLock::new();
    STATUS.get_or_init(|| match open() {
        Ok(devices) => CudaStatus::Available { devices },
        Err((reason, remedy)) => CudaStatus::Absent { reason, remedy: remedy.to_owned() },
    })
}

type Absence = (String, &'static str);

/// Checks the driver before loading: without one, four gigabytes of CUDA libraries are useless.
fn open() -> Result<Vec<Gpu>, Absence> {
    let gpus = gpus_of_driver()?;
    open_libtorch_cuda(&libtorch())?;
    let devices = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if !tch::Cuda::is_available() || devices != gpus.len() {
        let reason = format!("libtorch can use {devices} of the {} GPUs that the driver names", gpus.len());
        return Err((reason, "update the NVIDIA driver"));
    }
    Ok(gpus)
}

/// Loads `libtorch_cuda.so` from beside `libtorch_cpu.so`; its initialisers register the CUDA half.
fn open_libtorch_cuda(libtorch: &Libtorch) -> Result<(), Absence> {
    if !libtorch.with_cuda {
        let reason = format!("{} holds the CPU build of libtorch", libtorch.folder.display());
        return Err((reason, "run scripts/libtorch.sh --cuda"));
    }
    let path = libtorch.folder.join("libtorch_cuda.so");
    use libloading::os::unix::{self, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initialisers are libtorch's own; it is the same build as the libtorch_cpu.so in this process.
    let library = unsafe { unix::Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|fault| {
        (format!("{} does not load: {fault}", path.display()), "run scripts/libtorch.sh --cuda again")
    })?;
    // libtorch keeps pointers into it until the process ends.
    std::mem::forget(library);
    Ok(())
}

/// The driver's GPUs in the order in which libtorch numbers them (`CUDA_VISIBLE_DEVICES` heeded).
fn gpus_of_driver() -> Result<Vec<Gpu>, Absence> {
    // SAFETY: the driver's library has no initialisers with preconditions.
    let library = unsafe { Library::new("libcuda.so.1") }.map_err(|_| {
        ("there is no NVIDIA driver (libcuda.so.1) on this machine".to_owned(), "install the NVIDIA driver")
    })?;
    let driver = Driver::of(&library).map_err(|fault| {
        let reason = format!("the NVIDIA driver has no entry point: {fault}");
        (reason, UPDATE)
    });
    // The entry points lead into it, and libtorch opens it too.
    std::mem::forget(library);
    driver?.gpus(std::env::var("CUDA_VISIBLE_DEVICES").ok())
}

const UPDATE: &str = "update the NVIDIA driver";

/// The entry points of libcuda that are called here, with the signatures of cuda.h. Each returns 0 or the code of an error.
#[derive(Clone, Copy)]
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
    error: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int,
}

impl Driver {
    /// `library` is libcuda, and it is never unloaded.
    fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: names and signatures stand together in cuda.h of the driver API.
        unsafe {
            Ok(Self {
                init: *library.get(b"cuInit\0")?,
                version: *library.get(b"cuDriverGetVersion\0")?,
                count: *library.get(b"cuDeviceGetCount\0")?,
                device: *library.get(b"cuDeviceGet\0")?,
                name: *library.get(b"cuDeviceGetName\0")?,
                memory: *library.get(b"cuDeviceTotalMem_v2\0")?,
                error: *library.get(b"cuGetErrorString\0")?,
            })
        }
    }

    fn gpus(&self, visible: Option<String>) -> Result<Vec<Gpu>, Absence> {
        let mut version = 0;
        // SAFETY: the pointer is to a local integer; this call needs no initialisation.
        let code = unsafe { (self.version)(&mut version) };
        self.check(code, "does not say its version")?;
        if version / 1000 < CUDA_MAJOR {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let reason = format!("the NVIDIA driver supports CUDA {major}.{minor}, and libtorch needs {CUDA_MAJOR}.0");
            return Err((reason, UPDATE));
        }
        // SAFETY: 0 is the only value that the driver API allows.
        let mut code = unsafe { (self.init)(0) };
        let mut count = 0;
        if code == 0 {
            // SAFETY: the pointer is to a local integer, and the driver is initialised.
            code = unsafe { (self.count)(&mut count) };
        }
        if code != 0 || count <= 0 {
            return Err(no_gpu(code, &self.words(code), visible));
        }
        (0..count).map(|index| self.gpu(index)).collect()
    }

    /// Number `index` of those that [`Self::gpus`] has counted.
    fn gpu(&self, index: c_int) -> Result<Gpu, Absence> {
        let (mut device, mut memory, mut name) = (0, 0, [0 as c_char; 128]);
        // SAFETY: the pointer is to a local integer, and the driver is initialised.
        let code = unsafe { (self.device)(&mut device, index) };
        self.check(code, &format!("does not open GPU {index}"))?;
        // SAFETY: the driver writes at most the length that it is given, and the byte after that stays 0.
        let code = unsafe { (self.name)(name.as_mut_ptr(), name.len() as c_int - 1, device) };
        self.check(code, &format!("does not name GPU {index}"))?;
        // SAFETY: the pointer is to a local integer of the size of size_t.
        let code = unsafe { (self.memory)(&mut memory, device) };
        // SAFETY: the array is the driver's text and ends with a 0 of ours at the latest.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Gpu { name, memory_bytes: (code == 0).then_some(memory as u64) })
    }

    fn check(&self, code: c_int, what: &str) -> Result<(), Absence> {
        match code {
            0 => Ok(()),
            _ => Err((format!("the NVIDIA driver {what} (error {code}: {})", self.words(code)), "restart the machine")),
        }
    }

    /// What the driver says of a code.
    fn words(&self, code: c_int) -> String {
        let mut words = std::ptr::null();
        // SAFETY: the pointer is to a local pointer.
        let known = unsafe { (self.error)(code, &mut words) } == 0 && !words.is_null();
        if !known {
            return "unknown error".to_owned();
        }
        // SAFETY: the driver gave a text of its own, which stays where it is.
        unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
    }
}

fn no_gpu(code: c_int, words: &str, visible: Option<String>) -> Absence {
    match visible {
        Some(visible) => (
            format!("the NVIDIA driver shows no GPU ({words}) with CUDA_VISIBLE_DEVICES={visible:?}"),
            "unset CUDA_VISIBLE_DEVICES",
        ),
        None => (format!("the NVIDIA driver shows no GPU (error {code}: {words})"), "see whether nvidia-smi lists one"),
    }
}

/// The folder of a library among the lines of `/proc/self/maps`.
fn folder_of(maps: &str, library: &str) -> Option<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| path.file_name().is_some_and(|name| name == library))
        .and_then(Path::parent)
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_library_is_read_from_the_memory_map() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 12  /usr/bin/x\n\
                    7f00-7f01 r-xp 00000000 fe:00 13                 /a folder/lib/libtorch_cpu.so\n\
                    7f01-7f02 rw-p 00000000 00:00 0";
        assert_eq!(folder_of(maps, "libtorch_cpu.so"), Some(PathBuf::from("/a folder/lib")));
        assert_eq!(folder_of(maps, "libtorch_cuda.so"), None);
    }

    #[test]
    fn this_process_runs_the_version_that_tch_expects() {
        assert!(tch::get_num_threads() > 0);
        let libtorch = libtorch();
        assert!(libtorch.folder.join("libtorch_cpu.so").exists(), "{libtorch:?}");
        assert_eq!(libtorch.version, LIBTORCH_VERSION);
    }

    #[test]
    fn the_cpu_build_names_the_script_that_fetches_cuda() {
        let folder = tempfile::tempdir().unwrap();
        let libtorch = Libtorch { version: "2.13.0".into(), folder: folder.path().into(), with_cuda: false };
        let (reason, remedy) = open_libtorch_cuda(&libtorch).unwrap_err();
        assert!(reason.contains("CPU build") && remedy.contains("scripts/libtorch.sh --cuda"), "{reason}; {remedy}");
    }

    #[test]
    fn a_cuda_build_opens_and_becomes_visible_even_without_a_gpu() {
        let libtorch = libtorch();
        if !libtorch.with_cuda {
            println!("{} is the CPU build: not checked", libtorch.folder.display());
            return;
        }
        open_libtorch_cuda(&libtorch).unwrap();
        // at::cuda::getCurrentDeviceProperties()
        let symbol: &[u8] = b"_ZN2at4cuda26getCurrentDevicePropertiesEv";
        // SAFETY: the function is looked up and not called.
        let found = unsafe { libloading::os::unix::Library::this().get::<extern "C" fn()>(symbol).is_ok() };
        assert!(found);
    }

    #[test]
    fn a_hidden_gpu_is_told_from_a_missing_one() {
        for (visible, remedy) in [(Some(String::new()), "CUDA_VISIBLE_DEVICES"), (None, "nvidia-smi")] {
            assert!(no_gpu(100, "no device", visible).1.contains(remedy));
        }
    }

    /// A driver that knows one GPU; tests let single entry points of it fail.
    const DRIVER: Driver = {
        unsafe extern "C" fn init(_: c_uint) -> c_int {
            0
        }
        unsafe extern "C" fn version(out: *mut c_int) -> c_int {
            // SAFETY: `out` is a local of the caller, here and below.
            unsafe { *out = CUDA_MAJOR * 1000 + 20 };
            0
        }
        unsafe extern "C" fn count(out: *mut c_int) -> c_int {
            unsafe { *out = 1 };
            0
        }
        unsafe extern "C" fn device(out: *mut c_int, index: c_int) -> c_int {
            unsafe { *out = index };
            0
        }
        unsafe extern "C" fn name(out: *mut c_char, length: c_int, _: c_int) -> c_int {
            (0..length as usize).for_each(|at| unsafe { *out.add(at) = b'A' as c_char }); // fills all that it may
            0
        }
        unsafe extern "C" fn memory(out: *mut usize, _: c_int) -> c_int {
            unsafe { *out = 8_000_000_000 };
            0
        }
        unsafe extern "C" fn error(code: c_int, out: *mut *const c_char) -> c_int {
            unsafe { *out = c"it broke".as_ptr() };
            if code == 7 { 0 } else { 1 }
        }
        Driver { init, version, count, device, name, memory, error }
    };

    #[test]
    fn every_code_of_the_driver_is_looked_at() {
        unsafe extern "C" fn fails(_: *mut c_int) -> c_int {
            7
        }
        unsafe extern "C" fn fails_at(_: *mut c_int, _: c_int) -> c_int {
            8
        }
        unsafe extern "C" fn fails_to_begin(_: c_uint) -> c_int {
            7
        }
        unsafe extern "C" fn no_name(_: *mut c_char, _: c_int, _: c_int) -> c_int {
            7
        }
        unsafe extern "C" fn old(out: *mut c_int) -> c_int {
            // SAFETY: `out` is a local of the caller.
            unsafe { *out = 12_040 };
            0
        }
        let whole = DRIVER.gpus(None).unwrap();
        assert_eq!(whole, [Gpu { name: "A".repeat(127), memory_bytes: Some(8_000_000_000) }]);
        for (driver, reason) in [
            (Driver { version: fails, ..DRIVER }, "does not say its version (error 7: it broke)"),
            (Driver { version: old, ..DRIVER }, "supports CUDA 12.4, and libtorch needs 13.0"),
            (Driver { init: fails_to_begin, ..DRIVER }, "shows no GPU (error 7: it broke)"),
            (Driver { count: fails, ..DRIVER }, "shows no GPU (error 7: it broke)"),
            (Driver { device: fails_at, ..DRIVER }, "does not open GPU 0 (error 8: unknown error)"),
            (Driver { name: no_name, ..DRIVER }, "does not name GPU 0 (error 7: it broke)"),
        ] {
            let (found, remedy) = driver.gpus(None).unwrap_err();
            assert!(found.ends_with(reason) && !remedy.is_empty(), "{found}; {remedy}");
        }
    }

    #[test]
    fn memory_that_the_driver_does_not_say_is_unknown_and_not_zero() {
        unsafe extern "C" fn fails(_: *mut usize, _: c_int) -> c_int {
            7
        }
        let gpus = Driver { memory: fails, ..DRIVER }.gpus(None).unwrap();
        assert_eq!(gpus.iter().map(|gpu| gpu.memory_bytes).collect::<Vec<_>>(), [None]);
        assert!(gpus[0].to_string().ends_with(" (memory unknown)"), "{}", gpus[0]);
    }
}
