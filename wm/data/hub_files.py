"""What the Hugging Face hub says of a data set's files: commit, sizes, checksums. Their bytes come by wm/data/download.py.

HF_ENDPOINT names another hub, HF_TOKEN or `hf auth login` says who asks, HF_HUB_OFFLINE forbids it: huggingface_hub reads all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

from wm.config.errors import UserError
from wm.data.download import PATIENCE, Patience, Refused, download, host_of
from wm.data.public_sets import RemoteFile

KIND = "dataset"
MOST_PATHS = 100  # in one question


class HubRepository:
    """One data set of the hub.

    Args:
        repository: its id, as in lerobot/pusht.
        revision: a branch or a commit; None for the newest, which is asked for at once, so that all files are of one commit.
        page: where a person accepts its terms.

    Raises:
        UserError: it cannot be reached, is not there, or is not open to the one who asks. So do all methods.
    """

    def __init__(self, repository: str, revision: str | None, page: str) -> None:
        self.repository = repository
        self.page = page
        self._api = HfApi(endpoint=constants.ENDPOINT)
        if revision is None:
            with self._faults():
                revision = self._api.dataset_info(repository).sha
        self.revision = revision or "main"

    def files(self, paths: Sequence[str]) -> list[RemoteFile]:
        """These, in this order."""
        found: dict[str, RepoFile] = {}
        for start in range(0, len(paths), MOST_PATHS):
            with self._faults():
                told = self._api.get_paths_info(
                    self.repository,
                    list(paths[start : start + MOST_PATHS]),
                    revision=self.revision,
                    repo_type=KIND,
                )
            found |= {each.path: each for each in told if isinstance(each, RepoFile)}
        absent = [path for path in paths if path not in found]
        if absent:
            raise UserError(
                f"{self.repository}: no file {absent[0]} on {host_of(constants.ENDPOINT)}, at {self.revision}"
            )
        return [self._file(found[path]) for path in paths]

    def folder(self, path: str) -> list[RemoteFile]:
        """All files below one of its folders."""
        with self._faults():
            tree = self._api.list_repo_tree(
                self.repository, path, recursive=True, revision=self.revision, repo_type=KIND
            )
            found = [each for each in tree if isinstance(each, RepoFile)]
        for each in found:
            if PurePosixPath(each.path).is_absolute() or ".." in PurePosixPath(each.path).parts:
                raise UserError(f"{self.repository}: {each.path!r} leads out of the data set")
        return [self._file(each) for each in found]

    def download(
        self,
        file: RemoteFile,
        path: Path,
        progress: Callable[[int, int | None], None],
        say: Callable[[str], None],
        patience: Patience = PATIENCE,
    ) -> None:
        """As `wm.data.download.download`, with the login."""
        try:
            download(file, path, headers=build_hf_headers(), progress=progress, say=say, patience=patience)
        except Refused as error:
            raise UserError(f"{error}; {self._way_in}") from error

    @property
    def _way_in(self) -> str:
        return f"accept the terms on {self.page}, then `hf auth login`, or set HF_TOKEN"

    def _file(self, told: RepoFile) -> RemoteFile:
        url = hf_hub_url(
            self.repository, told.path, repo_type=KIND, revision=self.revision, endpoint=constants.ENDPOINT
        )
        return RemoteFile(told.path, url, told.size, None if told.lfs is None else told.lfs.sha256)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """The client's errors as one line; none of their text, which may hold addresses, is shown."""
        host = host_of(constants.ENDPOINT)
        try:
            yield
        except GatedRepoError as error:
            raise UserError(f"{self.repository}: not open to everybody; {self._way_in}") from error
        except RepositoryNotFoundError as error:
            raise UserError(f"{self.repository}: not on {host}, or not open to you; {self._way_in}") from error
        except OfflineModeIsEnabled as error:
            raise UserError(f"{self.repository}: HF_HUB_OFFLINE is set: nothing can be asked for") from error
        except HfHubHTTPError as error:
            raise UserError(f"{self.repository}: {host} answers {error.response.status_code}") from error
        except UserError:
            raise
        except Exception as error:  # of its HTTP library, and of what an answer that is no answer makes of it
            raise UserError(
                f"{self.repository}: {host} cannot be reached, or answers nonsense ({type(error).__name__}); HF_ENDPOINT names "
                "a mirror"
            ) from error
