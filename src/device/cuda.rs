//! Loads libtorch's CUDA library at run time and lists the GPUs of the NVIDIA driver.

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
    /// Total memory in bytes.
    pub memory_bytes: u64,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({:.1} GB)", self.name, self.memory_bytes as f64 / 1e9)
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
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initialisers are libtorch's own; it is the same build as the libtorch_cpu.so in this process.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|fault| {
        (format!("{} does not load: {fault}", path.display()), "run scripts/libtorch.sh --cuda again")
    })?;
    // libtorch keeps pointers into it until the process ends.
    std::mem::forget(library);
    Ok(())
}

/// The driver's GPUs in the order in which libtorch numbers them (`CUDA_VISIBLE_DEVICES` heeded).
fn gpus_of_driver() -> Result<Vec<Gpu>, Absence> {
    let install = "install the NVIDIA driver";
    // SAFETY: the driver's library has no initialisers with preconditions.
    let driver = unsafe { libloading::Library::new("libcuda.so.1") }
        .map_err(|_| ("there is no NVIDIA driver (libcuda.so.1) on this machine".to_owned(), install))?;
    // SAFETY: names and signatures as in cuda.h of the driver API.
    let gpus = unsafe { ask_driver(&driver) }
        .map_err(|fault| (format!("the NVIDIA driver has no entry point: {fault}"), "update the NVIDIA driver"))?;
    // libtorch opens it too; unloading it in between would gain nothing.
    std::mem::forget(driver);
    gpus
}

/// # Safety
/// `driver` is libcuda.
unsafe fn ask_driver(driver: &libloading::Library) -> Result<Result<Vec<Gpu>, Absence>, libloading::Error> {
    type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    unsafe {
        let init = driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0")?;
        let version_of = driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0")?;
        let count_of = driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDeviceGetCount\0")?;
        let device_at = driver.get::<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>(b"cuDeviceGet\0")?;
        let name_of = driver.get::<GetName>(b"cuDeviceGetName\0")?;
        let memory_of = driver.get::<unsafe extern "C" fn(*mut usize, c_int) -> c_int>(b"cuDeviceTotalMem_v2\0")?;
        let words_for =
            driver.get::<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>(b"cuGetErrorString\0")?;

        let (mut version, mut count) = (0, 0);
        version_of(&mut version);
        if version / 1000 < CUDA_MAJOR {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            let reason = format!("the NVIDIA driver supports CUDA {major}.{minor}, and libtorch needs {CUDA_MAJOR}.0");
            return Ok(Err((reason, "update the NVIDIA driver")));
        }
        let code = match init(0) {
            0 => count_of(&mut count),
            code => code,
        };
        if code != 0 || count == 0 {
            let mut words = std::ptr::null();
            words_for(code, &mut words);
            let words = if words.is_null() { "unknown error".into() } else { CStr::from_ptr(words).to_string_lossy() };
            return Ok(Err(no_gpu(code, &words, std::env::var("CUDA_VISIBLE_DEVICES").ok())));
        }
        let gpu = |index| {
            let (mut device, mut memory, mut name) = (0, 0, [0 as c_char; 128]);
            device_at(&mut device, index);
            name_of(name.as_mut_ptr(), name.len() as c_int - 1, device);
            memory_of(&mut memory, device);
            let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
            Gpu { name, memory_bytes: memory as u64 }
        };
        Ok(Ok((0..count).map(gpu).collect()))
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
}
